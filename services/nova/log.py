"""Logging: lines to stderr, text or JSON, and never a blocked hub.

A pipe that nobody reads fills after 64 KiB; a plain handler then stops the whole process (3 s measured). Here a
line goes to a bounded queue, and from there to stderr in pieces that the kernel takes at once; when it takes no
more, a greenlet waits for it, and what does not fit the queue is dropped, oldest first, and counted.

Under novad the time is left out: novad stamps each line itself.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import sys
import time
from typing import Any

from nova import context, flags, green

FLAGS = flags.FLAGS
flags.DEFINE_enum("log_format", "text", ["text", "json"], "how log lines look")
flags.DEFINE_list("quiet_loggers", ["amqp", "kombu", "sqlalchemy"], "loggers that only say warnings and worse")

QUEUE_MAX_BYTES = 1024 * 1024
# POLLOUT of a pipe promises this much room (pipe(7)).
PIECE = 4096


class Writer:
    """Bytes to a descriptor, in order, without ever waiting in `write`. Any thread may call it."""

    def __init__(self, fd: int, max_bytes: int = QUEUE_MAX_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        self._queue: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self.dropped = 0  # since it was last said
        self.lost = 0
        self._lock = green.original("threading").Lock()
        self._home = green.original("threading").get_ident()
        self._poll = green.original("select").poll()
        self._poll.register(fd, green.original("select").POLLOUT)
        self._waiter: Any = None

    def write(self, line: bytes) -> None:
        self._queue.append(line)
        self._bytes += len(line)
        while self._bytes > self._max_bytes and len(self._queue) > 1:
            self._bytes -= len(self._queue.popleft())
            self.dropped += 1
            self.lost += 1
        self._push()

    def flush(self, timeout_s: float) -> None:
        """Wait, in the kernel, until all is written or `timeout_s` seconds are over; for the end of a process."""
        deadline_s = time.monotonic() + timeout_s
        while self._queue and time.monotonic() < deadline_s:
            self._poll.poll(50)
            self._push()

    def _push(self) -> None:
        while self._queue and self._lock.acquire(False):
            try:
                blocked = not self._write_some()
            finally:
                self._lock.release()
            if blocked:
                self._wait_in_the_hub()
                return

    def _write_some(self) -> bool:
        """Write until the queue is empty (True) or the kernel takes no more (False)."""
        if self.dropped and self._poll.poll(0):
            self._queue.appendleft(b"(%d log lines were dropped: nobody read them)\n" % self.dropped)
            self._bytes += len(self._queue[0])
            self.dropped = 0
        while self._queue:
            if not self._poll.poll(0):
                return False
            line = self._queue.popleft()
            try:
                written = green.original("os").write(self._fd, line[:PIECE])
            except OSError:
                written = len(line)  # nobody will ever read it
            self._bytes -= written
            if written < len(line):
                self._queue.appendleft(line[written:])
        return True

    def _wait_in_the_hub(self) -> None:
        if self._waiter is None and green.original("threading").get_ident() == self._home:
            self._waiter = green.spawn(self._continue)

    def _continue(self) -> None:
        # A copy: another greenlet may wait for the same descriptor.
        fd = os.dup(self._fd)
        try:
            green.wait_write(fd)
        except OSError:
            return
        finally:
            os.close(fd)
            self._waiter = None
        self._push()


class Handler(logging.Handler):
    """Formats records for a `Writer`. It has no lock: a green lock taken by a native thread stops the process."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.writer = writer

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        if self.filter(record):
            self.emit(record)
            return True
        return False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """`LEVEL logger [request id] message`, after the time where nobody else stamps lines."""

    def __init__(self, has_time: bool) -> None:
        super().__init__()
        self._has_time = has_time

    def format(self, record: logging.LogRecord) -> str:
        parts = [record.levelname, record.name]
        if self._has_time:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            parts.insert(0, f"{stamp}.{int(record.msecs):03d}Z")
        request_id = _request_id()
        if request_id:
            parts.append(f"[{request_id}]")
        text = f"{' '.join(parts)} {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": _request_id(),
            "pid": record.process,
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in found.items() if value is not None})


def _request_id() -> str | None:
    current = context.current()
    return current.request_id if current else None


_writer: Writer | None = None


def setup(fd: int | None = None) -> None:
    """Send all logging of this process to stderr in the way that the flags say. May be called again."""
    global _writer
    _writer = Writer(sys.stderr.fileno() if fd is None else fd)
    handler = Handler(_writer)
    is_json = FLAGS.log_format == "json"
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter("NOVAD_SERVICE" not in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    apply_levels()


def apply_levels(debug: bool | None = None) -> None:
    """Set levels by `--verbose`, or by `debug` where given."""
    is_debug = FLAGS.verbose if debug is None else debug
    logging.getLogger().setLevel(logging.DEBUG if is_debug else logging.INFO)
    for name in FLAGS.quiet_loggers:
        logging.getLogger(name).setLevel(logging.WARNING)


def is_debug() -> bool:
    return logging.getLogger().level <= logging.DEBUG


def dropped() -> int:
    """How many lines were dropped since the process began."""
    return _writer.lost if _writer is not None else 0


def flush(timeout_s: float = 1.0) -> None:
    """Write what is queued, for at most `timeout_s` seconds."""
    if _writer is not None:
        _writer.flush(timeout_s)
