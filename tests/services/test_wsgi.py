"""The web server, spoken to in raw bytes by greenlets of the same process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from nova import green, wsgi
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Request, Response

QUICK = wsgi.Limits(head_s=0.2, idle_s=0.3, stall_s=0.5, body_s=0.2, min_rate=10_000_000, body_max_bytes=1000)


class App:
    """Echoes the body; `/gate` waits for the test, `/unread` leaves the body alone."""

    def __init__(self) -> None:
        self.gate = green.Event()
        self.began = green.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/gate":
            self.began.send(None)
            self.gate.wait()
        body = b"" if environ["PATH_INFO"] == "/unread" else environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"<", body, b">"]


class Client:
    """One connection that sends and reads raw bytes."""

    def __init__(self, port: int) -> None:
        self._sock = green.GreenSocket(socket.create_connection(("127.0.0.1", port)))
        self._sock.settimeout(10)

    def send(self, data: bytes) -> Client:
        self._sock.sendall(data)
        return self

    def get(self, path: str = "/", extra: str = "") -> Client:
        return self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())

    def response(self) -> tuple[int, str, bytes]:
        """(status, head, body) of a response with a length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode()
        length = next(
            (int(line.split(":")[1]) for line in text.split("\r\n") if line.lower().startswith("content-length")),
            0,
        )
        while len(body) < length:
            body += self._receive()
        return int(text.split()[1]), text, body

    def rest(self) -> bytes:
        """All until the other side closes."""
        data = b""
        while True:
            try:
                more = self._sock.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def _receive(self) -> bytes:
        more: bytes = self._sock.recv(65536)
        assert more, "the connection was closed"
        return more

    def say_no_more(self) -> Client:
        self._sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def serve(app: App) -> Iterator[Callable[..., wsgi.Server]]:
    servers = []

    def start(application: Any = app, limits: wsgi.Limits | None = None, **more: Any) -> wsgi.Server:
        server = wsgi.Server(limits=limits)
        servers.append(server)
        server.start(application, **more)
        return server

    yield start
    for server in servers:
        server.kill()


Serve = Callable[..., wsgi.Server]


def test_a_body_comes_back_over_a_connection_that_stays_open(serve: Serve) -> None:
    client = Client(serve().port)
    for body in (b"one", b"two"):
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" + body)
        assert client.response()[::2] == (200, b"<" + body + b">")


def test_a_chunked_body_is_read(serve: Serve) -> None:
    client = Client(serve().port)
    client.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert client.response()[2] == b"<abcde>"


def test_who_expects_100_is_told_to_continue(serve: Serve) -> None:
    client = Client(serve().port)
    client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.response()[0] == 100
    client.send(b"abc")
    assert client.response()[::2] == (200, b"<abc>")


def test_stop_closes_idle_connections_and_answers_what_has_begun(serve: Serve, app: App) -> None:
    server = serve()
    idle, fresh, busy = (Client(server.port) for _ in range(3))
    idle.get().response()
    busy.get("/gate")
    app.began.wait()
    assert [call.method for call in server.inflight] == ["GET /gate"]
    stopping = green.spawn(lambda: (server.stop(), server.wait()))
    assert idle.rest() == b""
    assert fresh.rest() == b""
    assert not stopping.dead
    app.gate.send(None)
    status, head, body = busy.response()
    assert (status, body) == (200, b"<>")
    assert "Connection: close" in head
    assert busy.rest() == b""
    stopping.wait()
    assert server.inflight == []


def test_stop_refuses_new_connections(serve: Serve) -> None:
    server = serve()
    port = server.port
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_whoever_waited_in_the_backlog_is_answered_when_the_server_stops(serve: Serve) -> None:
    server = serve()
    raw = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    for sock in raw:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    # The hub has not turned since: all five are in the kernel's backlog.
    server.stop()
    server.wait()
    for sock in raw:
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        sock.close()


def test_a_request_that_is_on_its_way_when_the_server_stops_is_answered(serve: Serve, app: App) -> None:
    server = serve()
    young = Client(server.port)
    while not server._connections:
        green.sleep(0)
    stopping = green.spawn(lambda: (server.stop(), server.wait()))
    green.sleep(0)
    young.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
    green.sleep(0.01)
    young.send(b"abc")
    status, head, body = young.response()
    assert (status, body) == (200, b"<abc>")
    assert "Connection: close" in head
    stopping.wait()


def test_kill_answers_503_to_what_has_no_response_yet(serve: Serve, app: App) -> None:
    server = serve()
    client = Client(server.port).get("/gate")
    app.began.wait()
    server.kill()
    assert client.response()[0] == 503
    server.wait()


def test_a_head_that_comes_too_slowly_is_cut_off(serve: Serve) -> None:
    server = serve(limits=QUICK)
    client = Client(server.port).send(b"GET / HTTP/1.1\r\n")
    began_s = time.monotonic()
    trickle = green.spawn(_trickle, client, b"X: y\r\n")
    client.rest()
    trickle.kill()
    assert 0.1 < time.monotonic() - began_s < 2


def test_idle_connections_make_room_where_every_place_is_taken(serve: Serve, app: App) -> None:
    server = serve(limits=wsgi.Limits(threads=3, idle_s=60))
    busy = Client(server.port).get("/gate")
    app.began.wait()
    idle = [Client(server.port).get(), Client(server.port).get()]
    assert [client.response()[0] for client in idle] == [200, 200]
    for _ in range(4):
        assert Client(server.port).get().response()[0] == 200
    assert [client.rest() for client in idle] == [b"", b""]
    app.gate.send(None)
    assert busy.response()[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /pa",
        b"GET /path HTTP/1.1",
        b"GET / HTTP/1.1\r\nHos",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /path\r\n",
    ],
)
def test_what_was_cut_off_in_its_head_is_no_request(serve: Serve, head: bytes) -> None:
    ran: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        ran.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"ran"]

    answer = Client(serve(app).port).send(head).say_no_more().rest()
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert not ran


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 3\r\nContent-Length: 5", b"Content-Length: +3", b"Content-Length: 3, 3",
        b"Content-Length: 1_0", b"Content-Length: \xb2", b"Content-Length : 3",
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"X: y\r\n folded: z", b"no colon", b"X: a\rContent-Length: 3", b"Host: another",
    ],
)  # fmt: skip
def test_a_head_that_may_be_read_in_two_ways_is_refused(serve: Serve, fields: bytes) -> None:
    client = Client(serve().port).send(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\nabcde")
    assert client.rest().startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize(
    "body", [b"ZZ\r\nabc", b"-3\r\nabc", b"0x3\r\nabc", b"+3\r\nabc", b"3\r\nabcde\r\n0", b"\r\n"]
)
def test_a_chunk_without_a_plain_size_or_longer_than_it_is_refused(serve: Serve, body: bytes) -> None:
    client = Client(serve().port).send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.send(body + b"\r\n0\r\n\r\n").rest().startswith(b"HTTP/1.1 400 ")


def test_chunks_may_have_extensions_and_trailers(serve: Serve) -> None:
    client = Client(serve().port).send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n")
    client.send(b'3;name="value"\r\nabc\r\n00A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n')
    assert client.response()[::2] == (200, b"<abc0123456789>")
    assert client.get().response()[0] == 200


def test_a_body_that_comes_too_slowly_is_cut_off(serve: Serve) -> None:
    server = serve(limits=QUICK)
    client = Client(server.port).send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
    began_s = time.monotonic()
    trickle = green.spawn(_trickle, client, b"x")
    client.rest()
    trickle.kill()
    assert 0.1 < time.monotonic() - began_s < 2


def _trickle(client: Client, data: bytes) -> None:
    while True:
        green.sleep(0.03)
        try:
            client.send(data)
        except OSError:
            return


def test_who_never_asks_is_cut_off_as_soon_as_a_slow_head(serve: Serve) -> None:
    client = Client(serve(limits=wsgi.Limits(head_s=0.2, idle_s=60.0)).port)
    began_s = time.monotonic()
    assert client.rest() == b""
    assert 0.1 < time.monotonic() - began_s < 2


def test_an_idle_connection_is_closed_in_time(serve: Serve) -> None:
    client = Client(serve(limits=QUICK).port)
    client.get().response()
    began_s = time.monotonic()
    assert client.rest() == b""
    assert 0.2 < time.monotonic() - began_s < 2


def test_a_long_request_is_not_taken_for_a_slow_head(serve: Serve, app: App) -> None:
    client = Client(serve(limits=QUICK).port).get("/gate")
    app.began.wait()
    green.sleep(QUICK.head_s * 2)
    app.gate.send(None)
    assert client.response()[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(serve: Serve) -> None:
    client = Client(serve(limits=QUICK).port)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert client.response()[0] == 413


def test_a_chunked_body_that_grows_too_large_ends_the_connection(serve: Serve) -> None:
    client = Client(serve(limits=QUICK).port)
    client.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n"
        + b"x" * 2000
        + b"\r\n0\r\n\r\n"
    )
    assert b"200 OK" not in client.rest()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: %s\r\n" % (n, b"x" * 4000) for n in range(20)) + b"\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01garbage\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_the_server_goes_on(serve: Serve, data: bytes, status: int) -> None:
    server = serve()
    answer = Client(server.port).send(data).rest()
    assert f" {status} ".encode() in answer or f"Error code: {status}".encode() in answer
    assert Client(server.port).get().response()[0] == 200


def test_a_client_that_goes_away_is_no_error_and_leaves_nothing(serve: Serve, app: App) -> None:
    server = serve()
    client = Client(server.port).get("/gate")
    app.began.wait()
    client.close()
    app.gate.send(None)
    assert Client(server.port).get().response()[0] == 200
    server.stop()
    server.wait()
    assert (server.inflight, server.is_idle) == ([], True)


def test_a_body_that_the_application_leaves_is_skipped(serve: Serve) -> None:
    client = Client(serve().port)
    client.send(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert client.response()[0] == 200
    assert client.get().response()[::2] == (200, b"<>")


def test_two_connections_that_never_rest_leave_each_other_their_turn(serve: Serve) -> None:
    server = serve()
    finished: list[int] = []

    def run(number: int) -> None:
        client = Client(server.port)
        for _ in range(50):
            client.get().response()
        finished.append(number)

    greenlets = [green.spawn(run, number) for number in range(4)]
    for greenlet in greenlets:
        greenlet.wait()
    assert len(finished) == 4
    assert server.done == 200


def test_a_taken_address_is_named(serve: Serve) -> None:
    port = serve().port
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        serve(port=port)


def test_health_follows_the_state(serve: Serve, app: App) -> None:
    states = ["starting"]
    client = Client(serve(wsgi.Health(app, lambda: states[-1])).port)
    assert client.get("/healthz").response()[::2] == (503, b"starting\n")
    states.append("ready")
    assert client.get("/healthz").response()[::2] == (200, b"ready\n")
    assert client.get("/other").response()[2] == b"<>"


class Guard(wsgi.Middleware):
    def process_request(self, request: Request) -> Response | None:
        if request.headers.get("X-Deny") == "now":
            return Response("denied", 401)
        if request.headers.get("X-Deny"):
            raise Forbidden
        return None


def test_a_router_and_a_middleware_answer_by_path_method_and_header(serve: Serve) -> None:
    routes = {
        "/things/<int:number>": lambda request, number: Response(f"thing {number}"),
        ("/things", "POST"): lambda request: Response("made", 201),
    }
    client = Client(serve(Guard(wsgi.Router(routes))).port)
    assert client.get("/things/7").response()[::2] == (200, b"thing 7")
    assert client.get("/things/x").response()[0] == 404
    assert client.get("/things").response()[0] == 405
    assert client.get("/things/7", "X-Deny: now\r\n").response()[::2] == (401, b"denied")
    assert client.get("/things/7", "X-Deny: politely\r\n").response()[0] == 403


def test_an_inherited_socket_is_found_by_name_and_meant_for_this_process() -> None:
    import os

    assert wsgi.inherited_socket("web", {}) is None
    assert wsgi.inherited_socket("web", {"LISTEN_FDS": "0"}) is None
    assert wsgi.inherited_socket("web", {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1)}) is None


def test_a_kill_while_a_stop_is_under_way_disturbs_neither(serve: Serve, app: App) -> None:
    server = serve()
    client = Client(server.port).get("/gate")
    app.began.wait()
    stopping = [green.spawn(server.stop), green.spawn(server.kill), green.spawn(server.stop)]
    for greenlet in stopping:
        greenlet.wait()
    assert client.response()[0] == 503
    server.wait()
