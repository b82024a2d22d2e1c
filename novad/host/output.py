"""A child's output: two pipes, stamped lines, one file with rotation, followers.

    2026-11-23T17:01:02.123456Z o text       `o` stdout, `e` stderr, `n` novad's own remarks

The child's end of a pipe is opened for reading and writing, so the pipe always has a reader: when novad dies the
child gets no SIGPIPE, it only fills the pipe, and the next novad opens /proc/PID/fd/1 and loses nothing. For the
same reason end-of-file says nothing here; that a child is dead comes from its pidfd, and then what is buffered is
drained.

Lines are stamped a chunk at a time with one `bytes.replace`, not in a loop over lines, and written by the disk's
thread. When that falls behind, the child's pipes are not read until it has caught up; or, where the log drops, for
a moment only: then lines are counted and lost until it has, and the child waits no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Callable, Iterator

from novad.core.spec import Log
from novad.host import clock
from novad.host.disk import Disk
from novad.host.hub import Timer, Watcher
from novad.host.logfile import LogFile, Part

READ_BYTES = 65536
# Reads of one stream in one turn of the hub: a flood of one child delays the others by half a millisecond.
READS_PER_TURN = 4
PIPE_BYTES = 1024 * 1024
LINE_BYTES = 65536
SPLIT_MARK = b" [line split]"
# A line without an end is shown after this long (s6-log waits 2 s as well).
PARTIAL_S = 2.0
TERMINAL_SIZE = (40, 120)
# A write takes 1024 parts (IOV_MAX); lines come in three at most.
PARTS_AT_ONCE = 1000
BYTES_AT_ONCE = 1024 * 1024
# What the disk may owe one process before its pipes are left alone; and before even the end of a dead child, or a
# remark of ours, is lost.
OWED_BYTES = 512 * 1024
OWED_AT_MOST = 8 * 1024 * 1024
# So long a child whose log drops waits: a burst may be more than what is owed at most, and a hung disk hangs longer.
PATIENCE_S = 0.05


class Output:
    """The log of one process over all its children.

    `on_lines(text)` gets every stamped chunk while `is_followed`; `on_raw(data)` gets the child's bytes while a
    log probe looks for its line.
    """

    def __init__(self, log: Log, disk: Disk, on_lines: Callable[[bytes], None]) -> None:
        self._file = LogFile(log)
        self._disk = disk
        self._may_drop = log.drop
        # What the disk's thread has not taken up yet; and bytes, counted by the loop and by the thread, each its own.
        self._pending: deque[tuple[Part, ...]] = deque()
        self._is_asked = False
        self._is_collecting = False
        self._given = 0
        self._written = 0
        self._lost_lines = 0
        self._awaits_room = False
        self._is_dropping = False
        self._patience: Timer | None = None
        self.is_followed = False
        self.on_raw: Callable[[bytes], None] | None = None
        self._on_lines = on_lines
        self._streams: list[Stream] = []

    def open_pipe(self, letter: str) -> int:
        """A new pipe for a child; returns the child's end, which the caller closes after the spawn.

        Raises `OSError` when descriptors run out.
        """
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            child_fd = os.open(f"/proc/self/fd/{write_fd}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self.attach(letter, read_fd)
        return child_fd

    def open_terminal(self) -> int:
        """A new pseudo-terminal for a child that needs one; returns the child's end, as `open_pipe` does.

        It ends with novad: unlike a pipe it cannot be taken over. Raises `OSError`.
        """
        read_fd, child_fd = os.openpty()
        fcntl.ioctl(child_fd, termios.TIOCSWINSZ, struct.pack("HHHH", *TERMINAL_SIZE, 0, 0))
        self.attach_terminal(read_fd)
        return child_fd

    def attach_terminal(self, read_fd: int, partial: bytes = b"") -> None:
        """As `attach`, for our end of a terminal."""
        os.set_inheritable(read_fd, False)
        os.set_blocking(read_fd, False)
        self._streams.append(Stream(self, "o", read_fd, partial=partial, is_terminal=True))

    @property
    def terminal_fd(self) -> int | None:
        """Our end of the child's terminal, which nobody can open anew."""
        return next((stream.fd for stream in self._streams if stream.is_terminal), None)

    def attach(self, letter: str, read_fd: int, partial: bytes = b"") -> None:
        """Read `read_fd`, which this object owns from now on, after the beginning of a line that is known."""
        os.set_blocking(read_fd, False)
        try:
            # Fewer switches between a fast writer and us; refused above the user's share of pipe memory.
            fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass
        self._streams.append(Stream(self, letter, read_fd, partial=partial))

    def fill(self, is_full: bool) -> None:
        """Every write from now on fails as on a full disk, or none does; what came before is written first."""
        self._disk.submit(lambda: self._file.fill(is_full))

    def note(self, text: str) -> None:
        """A remark of novad's own, such as `started, pid 4011`."""
        self._put((f"{clock.stamp()} n {text}\n".encode(),), OWED_AT_MOST)

    def emit(self, *parts: Part) -> None:
        """Whole stamped lines, in parts that nobody had to copy together, to the file and to whoever follows."""
        self._put(parts, OWED_BYTES if self._is_dropping else OWED_AT_MOST)

    def _put(self, parts: tuple[Part, ...], most: int) -> None:
        if self._owed > most:
            self._lost_lines += b"".join(parts).count(b"\n")
            self._await_room()
        else:
            self._confess()
            self._give(parts)
        if self.is_followed:
            self._on_lines(b"".join(parts))

    def _give(self, parts: tuple[Part, ...]) -> None:
        self._given += sum(map(len, parts))
        self._pending.append(parts)
        if not self._is_collecting:
            self._ask()

    def _ask(self) -> None:
        if self._pending and not self._is_asked:
            self._is_asked = True
            self._disk.submit(self._write)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """One write for all that is given meanwhile: each wakes the thread."""
        self._is_collecting = True
        try:
            yield
        finally:
            self._is_collecting = False
            self._ask()

    def _confess(self) -> None:
        """Say how many lines the disk was too slow for."""
        if self._lost_lines:
            count, self._lost_lines = self._lost_lines, 0
            self.note(f"{count} line{'' if count == 1 else 's'} lost: the disk is too slow")

    @property
    def _owed(self) -> int:
        """Bytes that the disk has not taken yet."""
        return self._given - self._written

    @property
    def is_full(self) -> bool:
        """Whether the pipes are to be left alone; `resume` of each stream says when no longer."""
        if self._is_dropping or self._owed <= OWED_BYTES:
            return False
        self._await_room()
        # The thread may have finished just before it could know that somebody waits for it.
        is_full = self._owed > OWED_BYTES
        if is_full and self._may_drop and self._patience is None:
            self._patience = Timer(PATIENCE_S, self._lose_patience)
        return is_full

    def _lose_patience(self) -> None:
        """From now on lines are lost, until there is room again."""
        self._patience = None
        if self._awaits_room:
            self._is_dropping = True
            for stream in self._streams:
                stream.resume()

    def _await_room(self) -> None:
        if not self._awaits_room:
            self._awaits_room = True
            if self._owed <= OWED_BYTES:
                self._has_room()

    def _write(self) -> None:
        """In the disk's thread: all that has come together since the last time, in as few writes as possible."""
        self._is_asked = False
        pending, most = self._pending, min(BYTES_AT_ONCE, self._file.max_bytes)
        while pending:
            parts = list(pending.popleft())
            size = sum(map(len, parts))
            # A file is changed between two writes: together they must not be more than it may hold.
            while pending and len(parts) < PARTS_AT_ONCE and (more := sum(map(len, pending[0]))) + size <= most:
                parts += pending.popleft()
                size += more
            self._file.write(parts)
            self._written += size
        if self._awaits_room and self._owed <= OWED_BYTES // 2:
            self._disk.tell(self._has_room)

    def _has_room(self) -> None:
        if not self._awaits_room:
            return
        self._awaits_room = self._is_dropping = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._confess()
        for stream in self._streams:
            stream.resume()

    def position(self) -> list[int]:
        """Inode and size of the file now: where something stands in the log. Known once the disk has settled."""
        found = [0, 0]

        def look() -> None:
            found[:] = self._file.inode, self._file.size

        self._disk.submit(look)
        return found

    def length(self) -> int:
        """Bytes that the file holds now."""
        self._disk.settle()
        return self._file.length()

    def take_partials(self) -> dict[str, str]:
        """The unfinished lines by stream, as text that loses no byte."""
        taken = {stream.letter: stream.take_partial().decode("latin-1") for stream in self._streams}
        return {letter: text for letter, text in taken.items() if text}

    def drain(self) -> None:
        """Read what is buffered; others still hold the pipes."""
        for stream in self._streams:
            stream.drain()

    def end(self) -> None:
        """The child is dead: keep what it had written, and let go of its pipes."""
        for stream in self._streams:
            stream.finish()
        self._streams.clear()

    def close(self) -> None:
        self.end()
        self._disk.submit(self._file.close)


class Stream:
    """The reading end of one pipe."""

    def __init__(
        self, output: Output, letter: str, fd: int, *, partial: bytes = b"", is_terminal: bool = False
    ) -> None:
        self.is_terminal = is_terminal
        self._output = output
        self.letter = letter
        self._mark = f" {letter} ".encode()
        self.fd = fd
        self._partial = partial
        self._partial_since_s = clock.now_s()
        self._timer = Timer(PARTIAL_S, self._time_out) if partial else None
        self._is_at_end = False
        self._watcher: Watcher | None = Watcher(fd, self._readable)

    def _readable(self) -> None:
        if self._output.is_full:
            self._unwatch()
            return
        with self._output.collecting():
            for _ in range(READS_PER_TURN):
                if not self._read():
                    return

    def resume(self) -> None:
        """There is room again."""
        if self._watcher is None and not self._is_at_end:
            self._watcher = Watcher(self.fd, self._readable)

    def _read(self) -> bool:
        """One read; False when there is nothing more for now."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if not data:
            # Every holder has closed its end; the child itself may live on.
            self._is_at_end = True
            self._unwatch()
            return False
        if self._output.on_raw is not None:
            self._output.on_raw(data)
        self._take(data)
        return len(data) == READ_BYTES

    def _take(self, data: bytes) -> None:
        if self.is_terminal:
            # A terminal ends its lines this way.
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n")
        if end < 0:
            self._partial += data
            self._split()
        else:
            if self._partial and len(self._partial) + data.find(b"\n") > LINE_BYTES:
                self._emit_line(self.take_partial() + SPLIT_MARK)
            self._emit(data, len(data) - end - 1)
            self._partial_since_s = clock.now_s()
        if self._partial and self._timer is None:
            self._timer = Timer(PARTIAL_S, self._time_out)

    def _time_out(self) -> None:
        """Show a line that has no end for too long; the one that the timer was set for may have ended since."""
        left_s = self._partial_since_s + PARTIAL_S - clock.now_s()
        if self._partial and left_s > 0:
            self._timer = Timer(left_s, self._time_out)
        else:
            self._flush_partial()

    def _emit(self, data: bytes, tail: int) -> None:
        """The lines of `data`, of which the last `tail` bytes are the beginning of the next line.

        One pass stamps every line; what stands behind the last newline is cut off by length, not by a copy.
        """
        stamp = clock.stamp().encode() + self._mark
        stamped = memoryview(data.replace(b"\n", b"\n" + stamp))
        lines = stamped[: len(stamped) - len(stamp) - tail]
        if self._partial:
            self._output.emit(stamp, self._partial, lines)
        else:
            self._output.emit(stamp, lines)
        self._partial = data[len(data) - tail :] if tail else b""

    def _split(self) -> None:
        while len(self._partial) > LINE_BYTES:
            head, self._partial = self._partial[:LINE_BYTES], self._partial[LINE_BYTES:]
            self._emit_line(head + SPLIT_MARK)
            self._partial_since_s = clock.now_s()

    def _emit_line(self, line: bytes) -> None:
        self._output.emit(clock.stamp().encode() + self._mark + line + b"\n")

    def take_partial(self) -> bytes:
        """The unfinished line, which is somebody else's to finish now."""
        partial, self._partial = self._partial, b""
        return partial

    def _flush_partial(self) -> None:
        self._timer = None
        if self._partial:
            self._emit_line(self.take_partial())

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def drain(self) -> None:
        """Read what is buffered, at most a pipe full."""
        for _ in range(PIPE_BYTES // READ_BYTES + 1):
            if self._is_at_end or not self._read():
                break

    def finish(self) -> None:
        """Read what is buffered, and close."""
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        self._flush_partial()
        self._is_at_end = True
        self._unwatch()
        os.close(self.fd)
