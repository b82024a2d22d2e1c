"""TERM, once and again, wherever a service is; and callers that vanish: nothing is lost, cut off or left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from nova.broker import admin
from nova.testing import ServiceProcess

from tests.services import moments
from tests.system import crowd
from tests.system.board import Skip, Violation, experiment, require, until
from tests.system.bus import ENGINE, PATHS, ROOT, Bus
from tests.system.site import Site

IDLE_CLOSED_S = 1.0
# A slow reader takes so much, so often.
SIP_BYTES = 131_072
SIP_EVERY_S = 0.02


@experiment(
    "R39",
    "TERM once, twice and thrice at each named moment; TERM of a crowded web server; callers killed",
    short={
        "terms": [2], "queue": ["reconnect", "handler", "ack", "drain"], "web": ["body", "response", "drain"],
        "idle": 20, "slow": 5, "sipping": 3, "callers": 8, "hold_s": 1.0,
    },
    full={
        "terms": [1, 2, 3], "queue": moments.QUEUE, "web": moments.WEB,
        "idle": 100, "slow": 20, "sipping": 10, "callers": 200, "hold_s": 20.0,
    },
    controls={
        "a second TERM kills": {"hasty": True},
        "idle connections are kept": {"keeps_idle": True},
        "the callers are not dead": {"deadly": signal.SIGSTOP, "gone_s": 2.0},
    },
)  # fmt: skip
def stop_at_every_moment(
    site: Site,
    terms: Sequence[int],
    queue: Sequence[str],
    web: Sequence[str],
    idle: int,
    slow: int,
    sipping: int,
    callers: int,
    hold_s: float,
    hasty: bool = False,
    keeps_idle: bool = False,
    deadly: signal.Signals = signal.SIGKILL,
    gone_s: float = 60.0,
) -> str:
    if ENGINE != "own":
        raise Skip("what callers leave on a broker is asked over the socket of nova-broker")
    began_s = time.monotonic()
    for number in terms:
        _pass_moments(site, number, queue, web, f"--hasty={hasty}")
    stops = len(terms) * (len(queue) + len(web))
    closed_s = _empty_the_room(idle, slow, sipping, keeps_idle)
    left_s = _lose_callers(site, callers, hold_s, deadly, gone_s)
    return (
        f"{stops} stops in time and clean, 0 half effects; {slow} + {sipping} slow readers answered whole, "
        f"{idle} idle closed in {closed_s:.2f} s; {callers} callers killed, 0 of their connections and reply "
        f"queues left after {left_s:.2f} s, {time.monotonic() - began_s:.1f} s"
    )


def _pass_moments(site: Site, terms: int, queue: Sequence[str], web: Sequence[str], *flags: str) -> None:
    folder = site.folder / f"terms{terms}"
    folder.mkdir()
    moments.prepare(folder)
    try:
        with moments.broker(folder) as url:
            moments.pass_queue(folder, url, terms, queue, *flags)
        moments.pass_web(folder, terms, web, *flags)
    except (AssertionError, TimeoutError) as error:
        raise Violation(f"{terms} TERM: {error}") from None


# -- a crowded web server


def _empty_the_room(idle: int, slow: int, sipping: int, keeps_idle: bool) -> float:
    """How long after TERM the last idle connection was closed, s."""
    arguments = ["--crowd_manager=tests.system.crowd.Crowd", f"--keeps_idle={keeps_idle}", "--drain_timeout=20"]
    with ServiceProcess("nova-crowd", *arguments, pythonpath=str(ROOT)) as service:
        service.wait_ready()
        port = moments.port_of_web(service)
        idlers = [_asked(port, "/") for _ in range(idle)]
        for idler in idlers:
            require(_response(idler).endswith(b"\r\n\r\nok"), "who will be idle was answered")
        slow_ones = [_asked(port, "/slow") for _ in range(slow)]
        sippers = [_asked(port, "/large") for _ in range(sipping)]
        for sipper in sippers:
            require(bool(select.select([sipper], [], [], 10)[0]), "large answers have begun")
        require(not select.select(idlers, [], [], 0)[0], "idle connections are open until the TERM")
        service.signal("TERM")
        began_s = time.monotonic()
        for idler in idlers:
            _await_end(idler, began_s + IDLE_CLOSED_S)
        closed_s = time.monotonic() - began_s
        for one in slow_ones:
            require(_response(one).endswith(b"\r\n\r\nok"), "a request in flight is answered")
        size = len(crowd.PART) * crowd.PARTS
        _sip(sippers, size)
        code = service.wait()
        require(code == 0, f"the server ends clean: {code}\n{service.log}")
        for sock in (*idlers, *slow_ones, *sippers):
            sock.close()
    return closed_s


def _asked(port: int, path: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


def _response(sock: socket.socket) -> bytes:
    """A short response, whole; less where the server has gone."""
    data = b""
    while not data.endswith(b"ok") and (piece := sock.recv(4096)):
        data += piece
    return data


def _await_end(sock: socket.socket, until_s: float) -> None:
    readable = select.select([sock], [], [], max(0.0, until_s - time.monotonic()))[0]
    require(bool(readable), f"idle connections are closed within {IDLE_CLOSED_S:g} s")
    require(sock.recv(1) == b"", "an idle connection is closed, and told nothing")


def _sip(socks: Sequence[socket.socket], size: int) -> None:
    """Read every large response to its end, a little at a time."""
    got = dict.fromkeys(socks, b"")
    while unfinished := [sock for sock in socks if len(_body(got[sock])) < size]:
        for sock in unfinished:
            piece = sock.recv(SIP_BYTES)
            require(piece != b"", f"a slow reader gets all: {len(_body(got[sock]))} of {size} bytes")
            got[sock] += piece
        select.select([], [], [], SIP_EVERY_S)


def _body(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


# -- callers that vanish


def _lose_callers(site: Site, callers: int, hold_s: float, deadly: signal.Signals, gone_s: float) -> float:
    """How long after their death nothing of them was left on the broker, s."""
    bus = Bus(site, 1, f"--hold_s={hold_s}", f"--rpc_thread_pool_size={callers + 1}")
    before = _on_the_broker(bus)
    crowd = subprocess.Popen(
        [sys.executable, "-m", "tests.system.callers", str(callers), *bus.flags()],
        cwd=ROOT, env={**os.environ, **PATHS}, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: bus.executions().total() >= callers, hold_s + 20.0, "every call has begun")
        os.killpg(crowd.pid, deadly)
        began_s = time.monotonic()
        until(lambda: _on_the_broker(bus) <= before, gone_s, f"of dead callers nothing is left: {before}")
        left_s = time.monotonic() - began_s
    finally:
        os.killpg(crowd.pid, signal.SIGKILL)
        crowd.wait()
    found = bus.settle(callers, hold_s + 20.0)
    require(not found.lost(range(callers)), f"no call of a dead caller is lost: {found.lost(range(callers))[:9]}")
    require(found.counter == callers, f"each takes effect once: {found.counter}")
    return left_s


def _on_the_broker(bus: Bus) -> tuple[int, int]:
    """Connections, and queues."""
    return len(admin.ask(bus.folder, "connections")), len(admin.ask(bus.folder, "queues"))
