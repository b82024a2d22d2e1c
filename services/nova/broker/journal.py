"""The journal: durable definitions and persistent messages, on disk before anybody is told that they are safe.

A folder with `definitions` (exchanges, queues, bindings as JSON lines; few, rewritten when most lines are
obsolete) and `messages.N` (see `segment`). Everything is appended; `flush` once per turn hands it to the
operating system, which makes it survive a `kill -9`, and with `sync` to the disk, which makes it survive a loss
of power. Files are compacted one per flush, so that no flush takes long. A lock keeps a second broker out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nova.broker import segment, table
from nova.broker.errors import JournalError
from nova.broker.message import Message
from nova.broker.segment import Segment, Stored

SEGMENT_BYTES = 4 * 1024 * 1024  # compacting one takes some 40 ms, in which the broker serves nobody
COMPACT_BELOW = 0.5  # of a file's bytes alive: compacting it frees at least as much as it writes
SPARED = 3  # the youngest files: where messages are taken soon, these are empty before it would be worth it

Definition = tuple[str, dict[str, Any]]


class Journal:
    """Opening reads everything: `definitions` and `messages()` are what the last broker left."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises `JournalError` where the folder cannot be used, or another broker uses it."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segments: dict[Segment, None] = {}
        self._dirty: dict[Segment, None] = {}
        self._unsynced: dict[Segment, None] = {}
        self._syncing: dict[Segment, None] = {}
        self._untidy: dict[Segment, None] = {}
        self._restored: list[tuple[Segment, list[Stored]]] = []
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{folder}: another nova-broker uses it") from None
        except OSError as error:
            raise JournalError(f"{folder}: {error.strerror}") from error
        self.definitions = Definitions(folder / "definitions")
        self._open_segments()

    def _open_segments(self) -> None:
        for stale in self._folder.glob("messages.*.new"):
            stale.unlink()
        last = 0
        for path in sorted(self._folder.glob("messages.*")):
            last = int(path.suffix[1:])
            data = path.read_bytes()
            stored, length = segment.alive(data)
            if not stored:
                path.unlink()
                continue
            opened = Segment(path)
            if length < len(data):
                opened.cut(length)
            opened.live = len(stored)
            opened.live_bytes = sum(len(each.payload) + segment.RECORD_HEAD.size for each in stored)
            self._segments[opened] = None
            self._restored.append((opened, stored))
        self._next_file = last + 1
        self._current = self._open_next()

    def _open_next(self) -> Segment:
        opened = Segment(self._folder / f"messages.{self._next_file:08d}")
        self._next_file += 1
        self._segments[opened] = None
        return opened

    def messages(self) -> Iterator[tuple[Segment, Stored]]:
        """What was not settled, in the order of its arrival; once."""
        restored, self._restored = self._restored, []
        for opened, stored in restored:
            for each in stored:
                yield opened, each

    @property
    def size_bytes(self) -> int:
        """What the messages' files take on disk."""
        return sum(each.size + each.pending_bytes for each in self._segments)

    def store(self, message: Message, queue: int, expires_ms: int) -> None:
        current = self._current
        current.add_message(segment.encode_message(message, queue, expires_ms))
        message.segment = current
        self._dirty[current] = None
        self._unsynced[current] = None
        if current.size + current.pending_bytes >= self._segment_bytes:
            self._current = self._open_next()

    def mark_delivered(self, message: Message) -> None:
        if message.segment is not None and not message.redelivered:
            message.segment.add_delivered(message.number)
            self._dirty[message.segment] = None

    def forget(self, message: Message) -> None:
        where = message.segment
        if where is not None:
            where.add_settled(message.number, segment.record_size(message))
            self._dirty[where] = None
            message.segment = None

    def flush(self, sync: bool) -> None:
        """Writes what was added since the last flush; with `sync` returns when the disk has all messages.

        Raises `OSError`; then nothing is lost, and the next flush tries again.
        """
        self.definitions.flush()
        dirty = list(self._dirty)
        for each in dirty:
            each.write()
            del self._dirty[each]
        if sync:
            self.definitions.sync()
            for each in list(self._unsynced):
                each.sync()
                del self._unsynced[each]
        untidy, self._untidy = self._untidy, {}
        self._tidy([*dirty, *untidy])

    def begin_sync(self) -> list[int]:
        """The files that the disk may not have whole; they stay open until `end_sync`."""
        self._syncing, self._unsynced = self._unsynced, {}
        return [*(each.fd for each in self._syncing), *self.definitions.begin_sync()]

    def end_sync(self, is_done: bool) -> None:
        """What `begin_sync` named is on disk, or could not be written and must be synced again."""
        syncing, self._syncing = self._syncing, {}
        self._untidy.update(syncing)
        self.definitions.end_sync(is_done)
        if not is_done:
            self._unsynced.update(syncing)

    def _tidy(self, touched: list[Segment]) -> None:
        """Deletes files without live messages and compacts one that is mostly dead."""
        is_wasteful = False
        for each in touched:
            if each is self._current or each in self._syncing or each not in self._segments:
                continue
            if each.live <= 0:
                del self._segments[each]
                self._unsynced.pop(each, None)
                each.delete()
            else:
                is_wasteful = is_wasteful or _is_mostly_dead(each)
        if is_wasteful:
            self._compact_one()

    def _compact_one(self) -> None:
        """The oldest that deserves it."""
        for each in list(self._segments)[:-SPARED]:
            if _is_mostly_dead(each) and each not in self._syncing:
                # The data is safe in the file as it is; where there is no room for a copy, a later turn tries.
                with contextlib.suppress(OSError):
                    each.compact()
                return

    def close(self) -> None:
        """The caller has flushed."""
        for each in self._segments:
            each.close()
        self.definitions.close()
        os.close(self._lock_fd)


def _is_mostly_dead(each: Segment) -> bool:
    return each.live_bytes < COMPACT_BELOW * each.size


class Definitions:
    """Exchanges, queues and bindings: JSON lines, the last word on each thing counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._things: dict[tuple[str, ...], Definition] = {}
        self._bindings: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}  # of each exchange and queue
        self._pending: list[bytes] = []
        self._lines = 0
        self._is_synced = True
        self._is_syncing = False
        good = self._read()
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, good)

    def _read(self) -> int:
        """The length of the part that is whole lines."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        good = 0
        for line in data.splitlines(keepends=True):
            try:
                kind, fields = json.loads(line)
                fields["arguments"] = table.decode(bytes.fromhex(fields["arguments"]))[0]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            good += len(line)
            self._apply(kind, fields)
        return good

    def __iter__(self) -> Iterator[Definition]:
        """Exchanges first, then queues, then bindings, so that they can be made in this order."""
        order = ("exchange", "queue", "binding")
        return iter(sorted(self._things.values(), key=lambda definition: order.index(definition[0])))

    def add(self, kind: str, fields: dict[str, Any]) -> None:
        self._apply(kind, fields)
        self._pending.append(_line(kind, fields))

    def _apply(self, kind: str, fields: dict[str, Any]) -> None:
        self._lines += 1
        vhost = fields["vhost"]
        key: tuple[str, ...]
        if kind in ("binding", "binding-deleted"):
            ends = (fields["source"], fields["to"], fields["destination"])
            key = ("binding", vhost, *ends, fields["routing_key"], repr(sorted(fields["arguments"].items())))
        else:
            key = (kind.removesuffix("-deleted"), vhost, fields["name"])
        if not kind.endswith("-deleted"):
            self._things[key] = (kind, fields)
            for end in _ends(key):
                self._bindings.setdefault(end, {})[key] = None
            return
        for each in [key, *self._bindings.get(key, ())]:  # bindings go with either of their ends
            self._things.pop(each, None)
            for end in _ends(each):
                self._bindings.get(end, {}).pop(each, None)
        self._bindings.pop(key, None)

    def flush(self) -> None:
        """Raises `OSError`; then everything waits on."""
        if not self._pending:
            return
        if self._lines > 1000 and self._lines > 4 * len(self._things) and not self._is_syncing:
            self._rewrite()
            return
        size = os.fstat(self._fd).st_size
        data = b"".join(self._pending)
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError("short write")
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self._pending.clear()
        self._is_synced = False

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        data = b"".join(_line(*definition) for definition in self)
        try:
            if os.write(fd, data) < len(data):
                raise OSError("short write")
            os.fdatasync(fd)
            os.rename(fresh, self._path)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._lines = len(self._things)
        self._pending.clear()

    def sync(self) -> None:
        if not self._is_synced:
            os.fdatasync(self._fd)
            self._is_synced = True

    def begin_sync(self) -> list[int]:
        """The file, where it must be synced; it stays open until `end_sync`."""
        self._is_syncing = not self._is_synced
        self._is_synced = True
        return [self._fd] if self._is_syncing else []

    def end_sync(self, is_done: bool) -> None:
        self._is_synced = self._is_synced and (is_done or not self._is_syncing)
        self._is_syncing = False

    def close(self) -> None:
        os.close(self._fd)


def _ends(key: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The keys of what a binding leads from and to; nothing for anything else."""
    if key[0] != "binding":
        return ()
    vhost, source, to, destination = key[1:5]
    return ("exchange", vhost, source), (to, vhost, destination)


def _line(kind: str, fields: dict[str, Any]) -> bytes:
    arguments = table.encode(fields.get("arguments", {})).hex()
    return json.dumps([kind, fields | {"arguments": arguments}]).encode() + b"\n"
