"""The web server: requests are spoken by `eventlet.wsgi`, connections are kept here.

eventlet's own server loop ends for good at the first EMFILE, and stopping it needs both its greenlet killed and
its socket closed, or the kernel goes on accepting. So the loop is ours: it survives running out of descriptors
(a spare one is given up to answer 503), it bounds how long a client may take for head and body, and `stop` is a
drain: connections that wait in the backlog are served, idle ones are closed, each request that has begun gets
its response with `Connection: close`.

A socket may be handed in (LISTEN_FDS); it is then only closed, never shut down, since its owner goes on with it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from collections.abc import Iterable
from typing import Any

from nova import green
from nova.httpprotocol import IDLE, Limits, Protocol, cut, end_softly, is_kept_idle
from nova.inflight import Call
from nova.webapp import Application, Guard, Health, Middleware, Router, StartResponse, WSGIApp, is_here

__all__ = [
    "Application", "Guard", "Health", "Limits", "Middleware", "Router", "Server", "inherited_socket", "is_here",
]  # fmt: skip

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("nova.wsgi.access")
# A probe every few seconds would bury what people ask.
ACCESS.addFilter(lambda record: f" {Health.path} " not in record.getMessage() or LOG.isEnabledFor(logging.DEBUG))
ACCESS_FORMAT = '%(client_ip)s "%(request_line)s" %(status_code)s %(body_length)s bytes %(wall_seconds).4f s'

_SERVICE_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
FIRST_FD = 3  # sd_listen_fds(3)


class Server:
    """One listening socket and its connections."""

    def __init__(self, threads: int = 1000, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(threads=threads)
        self._pool = green.GreenPool(self.limits.threads)
        self._connections: dict[int, list[Any]] = {}
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._spare = -1
        self._listener: Any = None
        self._acceptor: Any = None
        self._app: WSGIApp = _no_application
        self.done = 0
        self.shed = 0

    @property
    def port(self) -> int:
        """The port that is bound; 0 for a unix socket."""
        name = self._listener.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def inflight(self) -> list[Call]:
        return list(self._calls.values())

    @property
    def is_idle(self) -> bool:
        return not self._connections

    def start(
        self,
        application: WSGIApp,
        port: int = 0,
        host: str = "127.0.0.1",
        backlog: int = 128,
        sock: Any = None,
    ) -> None:
        """Listen on `host:port`, or on the socket handed in; connections are accepted when this returns.

        Raises `OSError` naming the address.
        """
        self._app = application
        self._listener = green.GreenSocket(sock) if sock is not None else _listen(host, port, backlog)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._wsgi = green.wsgi.Server(
            self._listener,
            self._listener.getsockname(),
            self._serve,
            log=ACCESS,
            protocol=Protocol,
            max_http_version="HTTP/1.1",
            keepalive=self.limits.idle_s,
            socket_timeout=self.limits.stall_s,
            log_format=ACCESS_FORMAT,
            debug=False,
        )
        # Header names go out as the application spells them: S3's metadata has its keys in them.
        self._wsgi.capitalize_response_headers = False
        self._wsgi.limits = self.limits
        self._acceptor = green.spawn(self._accept)

    def stop(self) -> None:
        """Take no new connection and let finish what has begun; `wait` returns when that is so."""
        # Taken before the first switch: a kill may come while a stop is under way.
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is None:
            return
        acceptor.kill()
        self._take_backlog()
        self._listener.close()
        os.close(self._spare)
        for connection in list(self._connections.values()):
            end_softly(connection)

    def wait(self) -> None:
        """Until no connection is left."""
        self._pool.waitall()

    def kill(self) -> None:
        """Cut everything off: a request that has no response yet gets 503."""
        self.stop()
        for thread in list(self._pool.coroutines_running):
            green.kill(thread)

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if error.errno in _SHORT_OF:
                    self._accept_when_short()
                elif error.errno == errno.EBADF:
                    return
                # Anything else is about one connection that ended before we took it (accept(2)).
                green.sleep(0)
            else:
                self._adopt(sock, address)

    def _accept_when_short(self) -> None:
        """Take or shed the next client. The kernel says that we are out of descriptors also where nobody waits."""
        green.wait_read(self._listener.fileno())
        try:
            raw, address = self._listener.fd.accept()
        except OSError as error:
            if error.errno in _SHORT_OF:
                self._shed_one()
        else:
            self._adopt(green.GreenSocket(raw), address)

    def _adopt(self, sock: Any, address: Any) -> None:
        if not self._pool.free():
            self._make_room()
        number = next(self._numbers)
        sock.settimeout(self.limits.stall_s)
        self._connections[number] = connection = [address or ("unix", 0), sock, IDLE]
        self._pool.spawn(self._wsgi.process_request, connection).link(self._forget, number)

    def _make_room(self) -> None:
        """Close the oldest connection that is kept open for nothing but a next request, if there is one."""
        for connection in self._connections.values():
            if is_kept_idle(connection):
                cut(connection[1])
                return

    def _forget(self, thread: Any, number: int) -> None:
        connection = self._connections.pop(number)
        connection[1].close()
        try:
            thread.wait()
        except green.GreenletExit:
            pass
        except Exception as error:
            LOG.info("the connection of %s ended: %r", connection[0], error)

    def _shed_one(self) -> None:
        """Out of descriptors: give up the spare one to tell a client so, instead of leaving it waiting."""
        if self.shed == 0 or not self._connections:
            LOG.error("out of file descriptors: answering 503 (%d connections)", len(self._connections))
        os.close(self._spare)
        try:
            sock, _ = self._listener.fd.accept()
            sock.setblocking(False)
            sock.send(_SERVICE_UNAVAILABLE)
            sock.close()
            self.shed += 1
        except OSError:
            pass
        finally:
            self._spare = _open_patiently()

    def _take_backlog(self) -> None:
        """Whoever the kernel has let in is served: closing the socket would reset them."""
        self._listener.fd.setblocking(False)
        while True:
            try:
                raw, address = self._listener.fd.accept()
            except OSError:
                return
            self._adopt(green.GreenSocket(raw), address)
            green.sleep(0)

    def _serve(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """The application as eventlet sees it: counted, and with an answer whatever happens."""
        number = next(self._numbers)
        path = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self._calls[number] = Call(str(number), path, "wsgi", None, time.monotonic())
        environ["eventlet.posthooks"].append((self._count, (number,), {}))
        try:
            return self._app(environ, start_response)
        except green.GreenletExit:
            start_response("503 Service Unavailable", [("Content-Length", "0"), ("Connection", "close")])
            return []
        except green.wsgi.ChunkReadError as error:
            LOG.info("%s: %s", path, error)
            start_response("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return []
        except OSError as error:
            LOG.info("%s: the client went away: %s", path, error)
            raise
        except Exception:
            LOG.exception("%s failed", path)
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"internal error\n"]

    def _count(self, environ: dict[str, Any], number: int) -> None:
        self._calls.pop(number, None)
        self.done += 1


def _no_application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("the server was not started")


def _listen(host: str, port: int, backlog: int) -> Any:
    socket = green.original("socket")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((host, port))
        raw.listen(backlog)
    except OSError as error:
        raw.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return green.GreenSocket(raw)


def _open_patiently() -> int:
    while True:
        try:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            green.sleep(0.05)


def inherited_socket(name: str | None = None, environ: Any = os.environ) -> Any:
    """The socket that the supervisor holds for us (sd_listen_fds(3)), by name or the first; None without one."""
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not count.isdigit() or int(count) < 1 or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    fd = FIRST_FD + (names.index(name) if name in names else 0)
    raw = green.original("socket").socket(fileno=os.dup(fd))
    raw.setblocking(False)
    return raw
