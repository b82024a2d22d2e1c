"""Blobs: immutable files with random names, the bytes behind every object and part.

A blob is written to `incoming/`, synced, and renamed into `data/`, so that after a crash it is whole or absent;
which blobs belong to what is the index's business, and `sweep` removes those that belong to nothing. No name
that a client chose ever becomes part of a path. Everything here blocks: callers run it in a native thread.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nova.objectstore.checksum import Digests


@dataclass(frozen=True)
class Segment:
    """A blob as a part of an object."""

    blob: str
    size: int


class Writer:
    """A blob being written. `commit` makes it durable; anything else must end in `discard`."""

    def __init__(self, incoming: Path, final: Path, digests: Digests) -> None:
        self.digests = digests
        self._incoming = incoming
        self._final = final
        self._file = open(incoming, "xb")  # noqa: SIM115 (closed by commit or discard)

    def write(self, data: bytes) -> None:
        self.digests.update(data)
        self._file.write(data)

    def commit(self) -> Segment:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._final.parent.mkdir(exist_ok=True)
        os.rename(self._incoming, self._final)
        _sync_folder(self._final.parent)
        return Segment(self._final.name, self.digests.size)

    def discard(self) -> None:
        self._file.close()
        self._incoming.unlink(missing_ok=True)


class Blobs:
    """All blobs below one folder."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._data = root / "data"

    def prepare(self) -> None:
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._data.mkdir(exist_ok=True)

    def new(self, digests: Digests) -> Writer:
        name = uuid.uuid4().hex
        return Writer(self._incoming / name, self._path(name), digests)

    def open(self, blob: str) -> BinaryIO:
        return open(self._path(blob), "rb")

    def link(self, blob: str) -> str:
        """Another name for the same bytes; this is how an object is copied without reading it."""
        name = uuid.uuid4().hex
        target = self._path(name)
        target.parent.mkdir(exist_ok=True)
        os.link(self._path(blob), target)
        _sync_folder(target.parent)
        return name

    def delete(self, blobs: Iterable[str]) -> None:
        for blob in blobs:
            self._path(blob).unlink(missing_ok=True)

    def sweep(self, wanted: set[str]) -> int:
        """Remove what an interrupted write or delete left behind; returns how many files."""
        found = [path for path in self._data.glob("*/*") if path.name not in wanted]
        found += self._incoming.iterdir()
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def _path(self, blob: str) -> Path:
        return self._data / blob[:2] / blob


class Pins:
    """Which blobs are being read, so that one that is deleted goes when its last reader is done. Pure."""

    def __init__(self) -> None:
        self._readers: Counter[str] = Counter()
        self._doomed: set[str] = set()

    def pin(self, blobs: Iterable[str]) -> None:
        self._readers.update(blobs)

    def unpin(self, blobs: Collection[str]) -> list[str]:
        """Returns the blobs that may go now."""
        self._readers.subtract(blobs)
        released = [blob for blob in set(blobs) if self._readers[blob] <= 0]
        for blob in released:
            del self._readers[blob]
        going = [blob for blob in released if blob in self._doomed]
        self._doomed.difference_update(going)
        return going

    def doom(self, blobs: Collection[str]) -> list[str]:
        """Returns those of `blobs` that nobody reads; the others go with their last reader."""
        kept = {blob for blob in blobs if self._readers[blob] > 0}
        self._doomed |= kept
        return [blob for blob in blobs if blob not in kept]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
