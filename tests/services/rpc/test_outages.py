"""What calls and services do while the connection to the broker breaks, freezes or is away."""

from __future__ import annotations

import logging
import time

import pytest
from nova import green, rpc
from nova.flags import FLAGS
from nova.rpc import fake


def test_a_call_whose_connections_break_completes_and_ran_once(bus, proxy, latch) -> None:
    ran = []

    def work(c, method, args):
        ran.append(method)
        return latch.hold()

    server = bus.serve(work)
    call = green.spawn(bus.call, "work")
    latch.wait_begun()
    proxy.cut()
    wait_until(lambda: proxy.accepted >= 4 and server.is_up())
    latch.go.send("done")
    assert call.wait() == "done"
    assert server.wait(5)
    assert bus.call("end") == "done"
    assert ran == ["work", "end"]


def test_fifty_calls_all_complete_while_connections_break_again_and_again(bus, proxy) -> None:
    bus.serve(lambda c, m, a: green.sleep(0.02) or a["n"])

    def some(first):
        return [bus.call("echo", n=n) for n in range(first, first + 10)]

    callers = [green.spawn(some, first) for first in range(0, 50, 10)]
    for _ in range(3):
        green.sleep(0.1)
        proxy.cut()
    assert [n for caller in callers for n in caller.wait()] == list(range(50))


def test_a_cast_made_while_the_broker_is_away_arrives_once_when_it_is_back(bus, proxy, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold(a["n"]))
    bus.cast("first", n=0)
    latch.wait_begun()
    proxy.down()
    wait_until(lambda: not server.is_up())
    cast = green.spawn(bus.cast, "work", n=1)
    green.sleep(0.1)
    assert not cast.dead
    proxy.down(False)
    cast.wait()
    assert latch.wait_begun() == [1]
    latch.go.send()


def test_a_call_while_the_broker_is_away_ends_at_its_timeout_and_says_why(bus, proxy) -> None:
    proxy.down()
    began_s = time.monotonic()
    with pytest.raises(rpc.RPCTimeout, match="no connection to the broker"):
        bus.call("x", timeout=0.5)
    assert time.monotonic() - began_s < 1.5
    with pytest.raises(rpc.RPCTimeout, match="outcome unknown"):
        rpc.Client(bus.topic, timeout=0.3).cast(bus.context, "x")


def test_stop_wait_close_and_cleanup_end_at_once_while_the_broker_is_away(bus, proxy) -> None:
    server = bus.serve(lambda c, m, a: None)
    bus.call("x")
    proxy.down()
    wait_until(lambda: not server.is_up())
    began_s = time.monotonic()
    assert server.stop()
    assert server.wait(1)
    server.close()
    rpc.cleanup()
    assert time.monotonic() - began_s < 0.5


def test_a_start_that_waits_for_the_broker_ends_when_the_server_is_closed(bus, proxy) -> None:
    proxy.down()
    server = rpc.get_server(bus.topic, "h1", lambda c, m, a: None)
    starting = green.spawn(server.start)
    green.sleep(0.2)
    server.close()
    with pytest.raises(rpc.LinkClosed):
        starting.wait()


def test_a_start_gives_up_after_its_timeout_with_the_reason(bus, proxy) -> None:
    proxy.down()
    server = rpc.get_server(bus.topic, "h1", lambda c, m, a: None)
    with pytest.raises(rpc.RPCTimeout, match=r"no connection to the broker in 0\.3 s"):
        server.start(0.3)
    server.close()


def test_a_server_that_was_stopped_does_not_consume_again_after_a_reconnect(bus, proxy, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold())
    bus.cast("work")
    latch.wait_begun()
    server.stop()
    proxy.cut()
    wait_until(lambda: proxy.accepted >= 3 and server.is_up())
    bus.cast("late")
    assert bus.depth() >= 1
    latch.go.send()
    assert server.wait(5)
    assert [call.method for call in server.inflight] == []


def test_a_broker_that_falls_silent_is_left_after_two_heartbeats(bus, proxy, caplog) -> None:
    with FLAGS.override(rpc_heartbeat=1.0):
        server = bus.serve(lambda c, m, a: "fine")
        assert bus.call("x") == "fine"
        began_s = time.monotonic()
        with caplog.at_level(logging.WARNING):
            proxy.freeze()
            with pytest.raises(rpc.RPCTimeout):
                bus.call("frozen", timeout=0.5)
            wait_until(lambda: not server.is_up())
        assert time.monotonic() - began_s < 5
        proxy.freeze(False)
        proxy.cut()
        assert bus.call("y") == "fine"


def test_idle_connections_are_kept_by_heartbeats(bus, proxy) -> None:
    with FLAGS.override(rpc_heartbeat=1.0):
        server = bus.serve(lambda c, m, a: "fine")
        bus.call("x")
        accepted = proxy.accepted
        green.sleep(2.6)
        assert server.is_up()
        assert proxy.accepted == accepted
        assert bus.call("y") == "fine"


def test_a_connection_cut_in_the_middle_of_a_frame_costs_nothing(bus, proxy) -> None:
    bus.serve(lambda c, m, a: a["text"])
    bus.call("warm", text="up")
    proxy.cut_in_mid_frame(after_bytes=50)
    assert bus.call("echo", text="x" * 1000) == "x" * 1000


def test_a_reply_that_is_lost_leaves_the_caller_to_its_timeout(fake_bus) -> None:
    fake_bus.serve(lambda c, m, a: m)
    fake_bus.call("x")
    fake.broker.lose_next_replies(1)
    with pytest.raises(rpc.RPCTimeout):
        fake_bus.call("y", timeout=0.2)
    assert fake_bus.call("z") == "z"


def test_a_cast_ends_at_its_timeout_while_the_broker_takes_nothing(fake_bus) -> None:
    fake_bus.serve(lambda c, m, a: m)
    fake_bus.call("x")
    fake.broker.block()
    with pytest.raises(rpc.RPCTimeout):
        rpc.Client(fake_bus.topic, timeout=0.2).cast(fake_bus.context, "x")
    fake.broker.block(False)
    assert fake_bus.call("y") == "y"


def test_sessions_that_drop_redeliver_to_the_fakes_consumers(fake_bus, latch) -> None:
    fake_bus.serve(lambda c, m, a: latch.hold())
    call = green.spawn(fake_bus.call, "x")
    latch.wait_begun()
    fake.broker.refuse()
    fake.broker.drop_sessions()
    green.sleep(0.05)
    fake.broker.refuse(False)
    latch.go.send("done")
    assert call.wait() == "done"


def wait_until(holds, patience_s: float = 8.0) -> None:
    until_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until_s, "did not happen in time"
        green.sleep(0.01)


def test_a_call_in_flight_survives_a_broker_that_is_killed_and_comes_back(bus, own_broker, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold())
    call = green.spawn(bus.call, "work")
    latch.wait_begun()
    own_broker.kill()
    wait_until(lambda: not server.is_up())
    own_broker.start()
    latch.go.send("done")
    assert call.wait() == "done"


def test_casts_that_were_accepted_survive_a_broker_that_is_killed(bus, own_broker) -> None:
    ran = []
    server = bus.serve(lambda c, m, a: ran.append(a["n"]), host="h1")
    server.stop()
    accepted = []

    def cast_all():
        for n in range(200):
            bus.cast("work", n=n)
            accepted.append(n)

    casting = green.spawn(cast_all)
    wait_until(lambda: len(accepted) > 20)
    own_broker.kill()
    green.sleep(0.05)
    own_broker.start()
    casting.wait()
    bus.serve(lambda c, m, a: ran.append(a["n"]), host="h2")
    wait_until(lambda: len(set(ran)) == 200)
    assert sorted(set(ran)) == accepted
    assert len(ran) <= 201
