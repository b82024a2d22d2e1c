"""A child's output: two pipes, stamped lines, one file with rotation, followers.

    2026-11-23T17:01:02.123456Z o text       `o` stdout, `e` stderr, `n` novad's own remarks

The child's end of a pipe is opened for reading and writing, so the pipe always has a reader: when novad dies the
child gets no SIGPIPE, it only fills the pipe, and the next novad opens /proc/PID/fd/1 and loses nothing. For the
same reason end-of-file says nothing here; that a child is dead comes from its pidfd, and then what is buffered is
drained.

Lines are stamped a chunk at a time with one `bytes.replace`, not in a loop over lines. A write that fails (disk
full, directory gone) is counted, never raised: no child and no novad stops for a log.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Callable

from novad.core.spec import Log
from novad.host import clock
from novad.host.hub import Timer, Watcher

READ_BYTES = 65536
# Reads of one stream in one turn of the hub: a flood of one child delays the others by half a millisecond.
READS_PER_TURN = 4
PIPE_BYTES = 1024 * 1024
LINE_BYTES = 65536
SPLIT_MARK = b" [line split]"
# A line without an end is shown after this long (s6-log waits 2 s as well).
PARTIAL_S = 2.0
TERMINAL_SIZE = (40, 120)


Part = bytes | memoryview


class LogFile:
    """Appends to `path`; at `max_bytes` it becomes `path.1`, that becomes `path.2`, and so on."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._fd = -1
        self.size = 0
        self.dropped_lines = 0
        self.error = ""

    def write(self, *parts: Part) -> None:
        """Write whole lines, given in parts; or count them as dropped and remember why in `error`."""
        length = sum(map(len, parts))
        before = -1
        try:
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                # Somebody removed it: nobody would ever read what went there.
                self.close()
            if self._fd < 0:
                self._open()
            if self.size and self.size + length > self._log.max_bytes:
                self._rotate()
            before = self.size
            count = os.writev(self._fd, parts)
            self.size += count
            if count < length:
                self._write_rest(b"".join(parts)[count:])
        except OSError as error:
            self.error = f"{self._log.path}: {os.strerror(error.errno or 0)}"
            self.dropped_lines += b"".join(parts).count(b"\n")
            self._take_back(before)
            self.close()

    def _take_back(self, size: int) -> None:
        """A write that ran out of room in its middle leaves no half of a line, so that the count is exact."""
        if 0 <= size < self.size:
            try:
                os.ftruncate(self._fd, size)
            except OSError:
                pass

    def _write_rest(self, data: bytes) -> None:
        while data:
            count = os.write(self._fd, data)
            self.size += count
            data = data[count:]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._log.path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._log.path), 0o700, exist_ok=True)
            self._fd = os.open(self._log.path, flags, 0o600)
        self.size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        path = self._log.path
        for index in range(self._log.files - 1, 0, -1):
            older = path if index == 1 else f"{path}.{index - 1}"
            if os.path.exists(older):
                os.replace(older, f"{path}.{index}")
        if self._log.files <= 1:
            os.unlink(path)
        self._open()

    def length(self) -> int:
        """Bytes that the file holds now; a file that was never opened is looked up."""
        if self._fd >= 0:
            return self.size
        try:
            return os.stat(self._log.path).st_size
        except OSError:
            return 0

    def position(self) -> tuple[int, int]:
        """Inode and size of the file now: where something stands in the log."""
        if self._fd < 0:
            return 0, 0
        return os.fstat(self._fd).st_ino, self.size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Output:
    """The log of one process over all its children.

    `on_lines(text)` gets every stamped chunk while `is_followed`; `on_raw(data)` gets the child's bytes while a
    log probe looks for its line.
    """

    def __init__(self, log: Log, on_lines: Callable[[bytes], None]) -> None:
        self.file = LogFile(log)
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
        os.set_inheritable(read_fd, False)
        self._streams.append(Stream(self, "o", read_fd, is_terminal=True))
        os.set_blocking(read_fd, False)
        return child_fd

    def attach(self, letter: str, read_fd: int, partial: bytes = b"") -> None:
        """Read `read_fd`, which this object owns from now on, after the beginning of a line that is known."""
        os.set_blocking(read_fd, False)
        try:
            # Fewer switches between a fast writer and us; refused above the user's share of pipe memory.
            fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass
        self._streams.append(Stream(self, letter, read_fd, partial=partial))

    def note(self, text: str) -> None:
        """A remark of novad's own, such as `started, pid 4011`."""
        self.emit(f"{clock.stamp()} n {text}\n".encode())

    def emit(self, *parts: Part) -> None:
        """Whole stamped lines, in parts that nobody had to copy together, to the file and to whoever follows."""
        if self.file.dropped_lines:
            self._confess()
        self.file.write(*parts)
        if self.is_followed:
            self._on_lines(b"".join(parts))

    def _confess(self) -> None:
        """Say how many lines were lost, as soon as the file can be written again."""
        count, error = self.file.dropped_lines, self.file.error
        self.file.dropped_lines = 0
        self.file.write(f"{clock.stamp()} n {count} lines lost: {error}\n".encode())
        if self.file.dropped_lines:
            self.file.dropped_lines = count

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
        self.file.close()


class Stream:
    """The reading end of one pipe."""

    def __init__(
        self, output: Output, letter: str, fd: int, *, partial: bytes = b"", is_terminal: bool = False
    ) -> None:
        self._is_terminal = is_terminal
        self._output = output
        self.letter = letter
        self._mark = f" {letter} ".encode()
        self._fd = fd
        self._partial = partial
        self._partial_since_s = clock.now_s()
        self._timer = Timer(PARTIAL_S, self._time_out) if partial else None
        self._watcher: Watcher | None = Watcher(fd, self._readable)

    def _readable(self) -> None:
        for _ in range(READS_PER_TURN):
            if not self._read():
                return

    def _read(self) -> bool:
        """One read; False when there is nothing more for now."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if not data:
            # Every holder has closed its end; the child itself may live on.
            self._unwatch()
            return False
        if self._output.on_raw is not None:
            self._output.on_raw(data)
        self._take(data)
        return len(data) == READ_BYTES

    def _take(self, data: bytes) -> None:
        if self._is_terminal:
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
            if self._watcher is None or not self._read():
                break

    def finish(self) -> None:
        """Read what is buffered, and close."""
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        self._flush_partial()
        self._unwatch()
        os.close(self._fd)
