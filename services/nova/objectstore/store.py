"""The store: blobs and index together, called from green threads, worked in native ones.

Disk and SQLite block, so each operation runs in eventlet's pool of native threads; the index takes one caller
at a time, blobs any number. One process at a time owns a store's folder (a lock on a file in it), because the
sweep at start removes what no index row refers to and a second process could be about to write that row.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from nova import green
from nova.objectstore.blobs import Blobs, Pins, Segment, Writer
from nova.objectstore.checksum import Digests
from nova.objectstore.index import Index

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024

P = ParamSpec("P")
R = TypeVar("R")


class Store:
    """A folder of buckets; `open` before the first use, `close` after the last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self._pins = Pins()
        self._turn = green.Semaphore(1)

    def open(self) -> None:
        """Take the folder and clean it. Raises `RuntimeError` where another process has it."""
        green.tpool.execute(self.blobs.prepare)
        self._lock = open(self.root / "lock", "a")  # noqa: SIM115 (held until close)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError(f"another nova-objectstore works in {self.root}") from None
        self.index: Index = green.tpool.execute(Index, self.root / "index.sqlite")
        removed = green.tpool.execute(lambda: self.blobs.sweep(self.index.blobs()))
        if removed:
            log.info("removed %d files that an interrupted request left in %s", removed, self.root)

    def close(self) -> None:
        with self._turn:
            green.tpool.execute(self.index.close)
        self._lock.close()

    def ask(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a method of the index."""
        with self._turn:
            return green.tpool.execute(method, *args, **kwargs)

    def change(self, method: Callable[P, list[str]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a method of the index that drops blobs, then remove them."""
        self.drop(self.ask(method, *args, **kwargs))

    def drop(self, blobs: list[str]) -> None:
        """Remove blobs that nothing refers to any more."""
        self._delete(self._pins.doom(blobs))

    def _delete(self, blobs: list[str]) -> None:
        if blobs:
            green.tpool.execute(self.blobs.delete, blobs)

    def new_blob(self, digests: Digests) -> Writer:
        return green.tpool.execute(self.blobs.new, digests)

    def write(self, writer: Writer, data: bytes) -> None:
        green.tpool.execute(writer.write, data)

    def commit(self, writer: Writer) -> Segment:
        return green.tpool.execute(writer.commit)

    def discard(self, writer: Writer) -> None:
        green.tpool.execute(writer.discard)

    def copy(self, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """The same bytes under new names; like `read`, called without a switch after `ask(index.objects.get)`."""
        names = [segment.blob for segment in segments]
        self._pins.pin(names)
        try:
            links = green.tpool.execute(lambda: [self.blobs.link(name) for name in names])
        finally:
            self._delete(self._pins.unpin(names))
        return tuple(Segment(link, segment.size) for link, segment in zip(links, segments, strict=True))

    def read(self, segments: tuple[Segment, ...], start: int, length: int) -> Reading:
        """Bytes `start` to `start + length` of the segments in a row, in pieces of READ_BYTES at most.

        The blobs stay readable until `close`. Called without a switch after `ask(index.objects.get)`, it cannot lose a
        race against a delete: that one needs the index first.
        """
        names = [segment.blob for segment in segments]
        self._pins.pin(names)
        return Reading(self._read(segments, start, length), lambda: self._delete(self._pins.unpin(names)))

    def _read(self, segments: tuple[Segment, ...], start: int, length: int) -> Generator[bytes, None, None]:
        for segment in segments:
            if length <= 0:
                return
            if start >= segment.size:
                start -= segment.size
                continue
            file = green.tpool.execute(self.blobs.open, segment.blob)
            try:
                file.seek(start)
                left = min(length, segment.size - start)
                length -= left
                start = 0
                while left:
                    data = green.tpool.execute(file.read, min(left, READ_BYTES))
                    if not data:
                        raise OSError(f"blob {segment.blob} is shorter than the {segment.size} bytes it had")
                    left -= len(data)
                    yield data
            finally:
                file.close()


class Reading:
    """An iterator over pieces, with a `close` that works even where nobody began to iterate."""

    def __init__(self, pieces: Generator[bytes, None, None], release: Callable[[], None]) -> None:
        self._pieces = pieces
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()
        release, self._release = self._release, None
        if release:
            release()
