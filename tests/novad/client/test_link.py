from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from novad.client.link import Unanswered, connect
from novad.core.errors import NoSuchService, NotRunning, WireError
from novad.core.place import Place
from novad.core.wire import Event, Reply, Request
from tests.novad.client.fakes import FakeDaemon, subscription


def test_a_request_gets_the_result_of_its_own_id(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["ping"] = {"pid": 7}
    with connect(place) as link:
        assert link.request("ping") == {"pid": 7}
        assert link.request("ping") == {"pid": 7}
    assert [request.id for request in daemon.requests] == [1, 2]


def test_answers_that_come_in_another_order_find_their_requests(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["stop"] = lambda request: None
    daemon.answers["ping"] = lambda request: [Reply(request.id, {"second": True}), Reply(1, {"first": True})]
    with connect(place) as link:
        first = link.send("stop", names=[])
        second = link.send("ping")
        assert link.result(first) == {"first": True}
        assert link.answered(second)
        assert link.result(second) == {"second": True}


def test_an_event_before_the_reply_is_kept(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["ping"] = lambda request: [Event(9, {"type": "state"}), Reply(request.id, {})]
    with connect(place) as link:
        link.request("ping")
        assert link.next_event(0) == {"type": "state"}
        assert link.next_event(0) is None


def test_a_wait_knows_of_events_that_came_with_an_answer(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["ping"] = lambda request: [Event(9, {"type": "state"}), Reply(request.id, {})]
    ours, theirs = socket.socketpair()
    with connect(place) as link, ours, theirs:
        link.request("ping")
        assert link.wait([ours], 10) == [link]
        theirs.send(b"x")
        assert link.wait([ours], 10) == [link, ours]
        assert link.pending_events() == [{"type": "state"}]
        assert link.wait([ours], 10) == [ours]


def test_the_daemons_error_is_raised_by_its_class(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["status"] = NoSuchService("no service `ap`", "did you mean `api`?")
    with connect(place) as link, pytest.raises(NoSuchService) as caught:
        link.request("status", names=["ap"])
    assert caught.value.exit_code == 4
    assert caught.value.hint == "did you mean `api`?"


def test_an_unknown_code_of_a_newer_daemon_is_a_plain_failure_that_keeps_its_words(
    daemon: FakeDaemon, place: Place
) -> None:
    from novad.core.wire import Error

    daemon.answers["ping"] = lambda request: [Error(request.id, "too_new", "no", "try")]
    with connect(place) as link, pytest.raises(Exception, match="no") as caught:
        link.request("ping")
    assert (caught.value.exit_code, caught.value.code) == (1, "too_new")


def test_no_answer_in_time_is_said(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["ping"] = lambda request: None
    with connect(place) as link, pytest.raises(Unanswered, match=r"0\.05 s"):
        link.request("ping", 0.05)


def test_a_daemon_that_dies_during_a_request_is_not_running(daemon: FakeDaemon, place: Place) -> None:
    with connect(place) as link:
        daemon.answers["ping"] = lambda request: daemon._connections[0].shutdown(socket.SHUT_RDWR)
        with pytest.raises(NotRunning, match="closed the connection"):
            link.request("ping", 5)


def test_events_before_the_end_are_delivered_and_then_the_end(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["subscribe"] = subscription({"type": "state", "name": "a"}, {"type": "ended"})
    with connect(place) as link:
        link.request("subscribe")
        daemon.close()
        assert link.next_event(5) == {"type": "state", "name": "a"}
        assert link.next_event(5) == {"type": "ended"}
        with pytest.raises(NotRunning):
            link.next_event(5)


def test_without_a_socket_nothing_runs(place: Place) -> None:
    with pytest.raises(NotRunning) as caught:
        connect(place)
    assert caught.value.hint == "novad up"


def test_a_stale_socket_is_not_running(place: Place) -> None:
    Path(place.run_dir).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(place.socket)
    assert os.path.exists(place.socket)
    with pytest.raises(NotRunning):
        connect(place)


def test_garbage_from_the_other_side_is_a_wire_error(daemon: FakeDaemon, place: Place) -> None:
    def garbage(request: Request) -> None:
        daemon._connections[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    daemon.answers["ping"] = garbage
    with connect(place) as link, pytest.raises(WireError):
        link.request("ping", 5)


def test_every_request_is_traced(daemon: FakeDaemon, place: Place) -> None:
    daemon.answers["ping"] = {}
    seen: list[Request] = []
    with connect(place, seen.append) as link:
        link.request("ping", names=["a"])
    assert [(request.verb, request.args) for request in seen] == [("ping", {"names": ["a"]})]


def test_a_place_in_a_full_queue_is_waited_for(place: Place) -> None:
    Path(place.socket).parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place.socket)
        listener.listen(0)
        with connect(place), ThreadPoolExecutor(1) as pool:
            late = pool.submit(connect, place)
            with pytest.raises(TimeoutError):
                late.result(0.2)
            first, _ = listener.accept()
            late.result(5).close()
            first.close()
