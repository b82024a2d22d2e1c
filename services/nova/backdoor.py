"""The admin socket: what a process is doing, asked from outside, and a Python prompt inside it.

A unix socket at `<state_path>/admin/<binary>.<host>`, for the same user only (mode 0600 in a 0700 directory, and the
peer's uid is looked at). One line asks, the answer ends with the connection:

    echo inflight | nc -U nova-state/admin/nova-compute.host1
    curl --unix-socket nova-state/admin/nova-compute.host1 http://x/metrics

`backdoor` opens the prompt. It runs in the hub: an endless loop typed there stops the service.
"""

from __future__ import annotations

import code
import contextlib
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nova import flags, green

LOG = logging.getLogger(__name__)
FLAGS = flags.FLAGS
flags.DEFINE_bool("admin_socket", True, "answer questions on <state_path>/admin/<binary>.<host>")

LINE_MAX = 1024
QUESTION_TIMEOUT_S = 10.0

Answers = Mapping[str, Callable[[], str]]


class Admin:
    """Answers the questions in `answers`, by name, until closed."""

    def __init__(self, path: str, answers: Answers, names: Mapping[str, Any] | None = None) -> None:
        """`names` are what the prompt knows."""
        self.path = path
        self._answers = answers
        self._names = dict(names or {})
        self._listener: Any = None
        self._greenlet: Any = None

    def start(self) -> bool:
        """Listen; False, with a warning, where that cannot be: a service runs without its admin socket."""
        try:
            self._listener = _listen(self.path)
        except OSError as error:
            LOG.warning("no admin socket at %s: %s", self.path, error)
            return False
        self._greenlet = green.spawn(self._accept)
        return True

    def close(self) -> None:
        if self._listener is None:
            return
        self._greenlet.kill()
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                green.sleep(0.1)  # out of descriptors, or the client has gone
                continue
            green.spawn(self._serve, sock)

    def _serve(self, sock: Any) -> None:
        try:
            if _peer_uid(sock) not in (0, os.getuid()):
                return
            sock.settimeout(QUESTION_TIMEOUT_S)
            self._converse(sock)
        except (OSError, ValueError):
            pass  # the client has gone, or said nothing
        finally:
            sock.close()

    def _converse(self, sock: Any) -> None:
        # Two files: writing to one of mode "rw" forgets what it has read ahead.
        how: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}
        with sock.makefile("r", **how) as reader, sock.makefile("w", **how) as writer:
            line = reader.readline(LINE_MAX).strip()
            if line == "backdoor":
                sock.settimeout(None)
                self._prompt(reader, writer)
            elif line.startswith("GET "):
                while reader.readline(LINE_MAX).strip():
                    pass
                writer.write(self._answer_http(line))
            else:
                writer.write(self._answer(line))

    def _answer(self, question: str) -> str:
        found = self._answers.get(question)
        if found is None:
            known = ", ".join([*sorted(self._answers), "backdoor"])
            return f"unknown question {question!r}; known: {known}\n"
        return found()

    def _answer_http(self, line: str) -> str:
        """Just enough of HTTP for curl and a scraper behind it."""
        question = line.split()[1].partition("?")[0].strip("/")
        status = "200 OK" if question in self._answers else "404 Not Found"
        body = self._answer(question)
        length = len(body.encode())
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n"
        return f"{head}Connection: close\r\n\r\n{body}"

    def _prompt(self, reader: Any, writer: Any) -> None:
        LOG.warning("a backdoor was opened")
        with contextlib.suppress(SystemExit):
            _Console(reader, writer, {**self._names, "green": green, "FLAGS": FLAGS}).interact(
                f"pid {os.getpid()}; names: {', '.join(sorted(self._names))}, green, FLAGS", ""
            )
        LOG.warning("the backdoor was closed")


class _Console(code.InteractiveConsole):
    """A Python prompt on two streams. Only what it runs itself prints there."""

    def __init__(self, reader: Any, writer: Any, names: dict[str, Any]) -> None:
        super().__init__(names)
        self._reader = reader
        self._writer = writer

    def raw_input(self, prompt: str = "") -> str:
        self.write(prompt)
        line: str = self._reader.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def write(self, data: str) -> None:
        self._writer.write(data)
        self._writer.flush()

    def runcode(self, code: Any) -> None:
        with contextlib.redirect_stdout(self._writer):
            super().runcode(code)


def socket_path(name: str) -> str:
    """Where the admin socket of a process is; `name` is `binary.host`."""
    return os.path.join(os.path.abspath(FLAGS.state_path), "admin", name.replace("/", "_"))


def ask(path: str, question: str, timeout_s: float = QUESTION_TIMEOUT_S) -> str:
    """The answer of the process whose admin socket is at `path`. Raises `OSError`."""
    socket = green.original("socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, _short(path) as address:
        sock.settimeout(timeout_s)
        sock.connect(address)
        sock.sendall(f"{question}\n".encode())
        sock.shutdown(socket.SHUT_WR)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def _listen(path: str) -> Any:
    """A listening socket at `path`; one that a dead process left behind is replaced.

    Raises `OSError`, also when a living process listens there or the directory belongs to somebody else.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.stat(folder)
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} must be a directory of our own with mode 0700")
    socket = green.original("socket")
    with _short(path) as address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(address) == 0:
                raise FileExistsError("another process listens there")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(address)
            os.chmod(path, 0o600)
            listener.listen(16)
        except OSError:
            listener.close()
            raise
    return green.GreenSocket(listener)


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """An address for `path` that fits the 107 bytes of a unix socket's (unix(7)), where Linux allows it."""
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{os.path.basename(path)}"
    finally:
        os.close(fd)


def _peer_uid(sock: Any) -> int:
    socket = green.original("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()  # the mode of the socket has to do
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[1])
