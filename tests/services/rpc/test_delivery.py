"""How often a message takes effect when processes die, stop, or get it twice."""

from __future__ import annotations

import time

import pytest
from nova import green, rpc
from nova.rpc import topology, wire


@pytest.mark.everywhere
def test_a_call_whose_process_is_killed_is_run_by_another(bus, victims) -> None:
    first = victims.start("h1")
    call = green.spawn(bus.call, "hold", name="x")
    victims.wait_log(1)
    victims.start("h2")
    first.kill()
    victims.wait_log(2)
    victims.go()
    assert call.wait() == "x"
    assert victims.log() == ["hold x", "hold x"]


def test_a_call_that_had_ended_is_not_run_again_after_its_process_is_killed(bus, victims) -> None:
    first = victims.start("h1")
    assert bus.call("effect", name="x") == "x"
    first.kill()
    first.wait()
    victims.start("h2")
    assert bus.call("effect", name="y") == "y"
    assert victims.log() == ["effect x", "effect y"]


def test_an_idempotent_call_to_a_host_is_resumed_by_it_and_answers_its_caller(bus, victims) -> None:
    first = victims.start("h1")
    call = green.spawn(bus.call, "again", host="h1", name="x")
    victims.wait_log(1)
    first.kill()
    victims.start("h1")
    victims.wait_log(2)
    victims.go()
    assert call.wait() == "x"


def test_a_call_to_a_host_that_may_not_run_twice_is_abandoned_with_a_clear_error(bus, victims) -> None:
    first = victims.start("h1")
    call = green.spawn(bus.call, "once", host="h1", name="x")
    victims.wait_log(1)
    first.kill()
    victims.start("h1")
    with pytest.raises(rpc.MessageAbandoned, match="had begun"):
        call.wait()
    assert victims.log() == ["hold x"]


def test_the_services_own_recovery_answers_for_a_call_that_had_begun(bus, victims) -> None:
    first = victims.start("h1")
    call = green.spawn(bus.call, "hold", host="h1", name="x")
    victims.wait_log(1)
    first.kill()
    victims.start("h1")
    assert call.wait() == "recovered hold"


@pytest.mark.everywhere
def test_a_deadly_message_is_tried_three_times_and_buried_with_the_reason(bus, victims) -> None:
    victims.start("h1")
    call = green.spawn(bus.call, "die")
    for count in (1, 2, 3):
        victims.wait_log(count)
        victims.start("h1")
    with pytest.raises(rpc.MessageAbandoned, match="died 3 times"):
        call.wait()
    assert victims.log() == ["die"] * 3
    (headers,) = dead_letters(bus)
    assert headers["tries"] == 3
    assert "died 3 times" in headers["reason"]
    assert bus.call("effect", name="fine") == "fine"


def test_calls_beside_a_deadly_one_are_not_buried_with_it(bus, victims) -> None:
    victims.start("h1")
    calls = [green.spawn(bus.call, "hold", name=str(n)) for n in range(3)]
    victims.wait_log(3, "hold")
    bus.cast("die")
    victims.wait_log(1, "die")
    victims.start("h1")
    victims.wait_log(2, "die")
    victims.start("h1")
    victims.start("h2")
    victims.go()
    assert [call.wait() for call in calls] == ["0", "1", "2"]
    victims.wait_log(3, "die")
    victims.start("h1")
    assert len(dead_letters(bus)) == 1
    assert victims.log().count("die") == 3


def test_a_method_that_blocks_the_hub_beyond_the_heartbeat_takes_effect_once(bus, victims) -> None:
    victims.start("h1", "--rpc_heartbeat=1")
    assert bus.call("burn", seconds=2.5, timeout=8)
    assert victims.log() == ["burn"]


@pytest.mark.parametrize("is_long_running", [True, False])
def test_a_long_running_call_outlasts_the_time_that_a_broker_lets_a_message_be_kept(
    bus, own_broker_with, is_long_running
) -> None:
    """RabbitMQ closes the channel of who keeps a message unacknowledged for 30 minutes; here it is a second."""
    ran = []

    def work(c, method, args):
        ran.append(method)
        green.sleep(2.5)
        return "done"

    work.rpc_long_running = is_long_running
    ups = []
    with own_broker_with("--consumer_timeout=1"):
        server = bus.serve(work, method_of=lambda name: work)
        call = green.spawn(bus.call, "work")
        until_s = time.monotonic() + 10
        while not call.dead and time.monotonic() < until_s:
            ups.append(server.is_up())
            green.sleep(0.02)
        assert call.wait() == "done"
        assert ran == ["work"]
        # The other way costs the service its connection again and again.
        assert all(ups) == is_long_running


def dead_letters(bus) -> list[dict]:
    """The headers of this bus's dead letters, taken out of the queue."""
    found = []
    until_s = time.monotonic() + 5
    with bus.connection() as connection:
        channel = connection.channel()
        while not found and time.monotonic() < until_s:
            others = []
            while (message := channel.basic_get(topology.DEAD_LETTERS)) is not None:
                headers = message.properties["application_headers"]
                if headers["topic"] == bus.topic:
                    found.append(headers)
                    channel.basic_ack(message.delivery_tag)
                else:
                    others.append(message.delivery_tag)
            for tag in others:
                channel.basic_reject(tag, requeue=True)
    return found


def test_stop_gives_back_what_has_not_begun_and_finishes_what_has(bus, latch) -> None:
    done = []

    def work(c, method, args):
        latch.hold(args["n"])
        done.append(args["n"])

    first = bus.serve(work, host="h1", prefetch=3)
    for n in range(10):
        bus.cast("work", n=n)
    begun = set(latch.wait_begun(3))
    assert first.stop()
    assert not first.wait(0.05)
    assert {call.request.args["n"] for call in first.inflight} == begun
    assert bus.depth() == 7
    latch.go.send()
    assert first.wait(5)
    first.close()
    assert set(done) == begun
    bus.serve(work, host="h2", prefetch=3)
    latch.wait_begun(7)
    bus.call("work", n=10)
    assert sorted(done) == list(range(11))


def test_a_server_that_stops_still_answers_calls_nested_in_served_ones(bus, latch) -> None:
    def dispatch(ctxt, method, args):
        if method == "outer":
            latch.hold()
            return rpc.call(ctxt, bus.topic, {"method": "inner"}, timeout=5)
        return "inner"

    server = bus.serve(dispatch)
    outer = green.spawn(bus.call, "outer")
    latch.wait_begun()
    server.stop()
    latch.go.send()
    assert outer.wait() == "inner"
    assert server.wait(5)


def test_close_leaves_unfinished_work_to_another(bus, latch) -> None:
    first = bus.serve(lambda c, m, a: latch.hold("first"), host="h1")
    call = green.spawn(bus.call, "work")
    latch.wait_begun()
    first.stop()
    first.close()
    bus.serve(lambda c, m, a: "second", host="h2")
    assert call.wait() == "second"
    latch.go.send()


def send_raw(bus, body: bytes, key: str | None = None) -> None:
    """Publish bytes to the topic as an ill-behaved peer would."""
    from nova.rpc.transport import Message

    rpc._client()._link.deliver(Message(body, "nova", key or bus.topic, persistent=True, mandatory=True), 5)


def test_a_request_that_comes_twice_runs_once_and_both_get_the_reply(bus, latch) -> None:
    ran = []

    def work(c, method, args):
        ran.append(method)
        return latch.hold(method)

    bus.serve(work, prefetch=5)
    request = wire.Request("work", {}, unique_id="same")
    send_raw(bus, wire.encode_request(request))
    latch.wait_begun()
    send_raw(bus, wire.encode_request(request))
    other = green.spawn(bus.call, "other")
    latch.wait_begun()
    latch.go.send()
    other.wait()
    send_raw(bus, wire.encode_request(request))
    bus.call("end")
    assert ran == ["work", "other", "end"]


def test_a_request_to_a_host_that_comes_again_after_a_restart_gets_the_stored_reply(bus) -> None:
    ran = []

    def count(c, method, args):
        ran.append(method)
        return len(ran)

    request = wire.Request("count", {}, unique_id="same")
    first = bus.serve(count, host="h1")
    send_raw(bus, wire.encode_request(request), f"{bus.topic}.h1")
    assert bus.call("next", host="h1") == 2
    first.stop()
    first.close()
    bus.serve(count, host="h1")
    send_raw(bus, wire.encode_request(request), f"{bus.topic}.h1")
    assert bus.call("last", host="h1") == 3
    assert ran == ["count", "next", "last"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b"[]", b"{}", b'{"method": 1}', b'{"method":"m","args":[]}'])
def test_a_message_that_is_no_request_is_buried_and_stops_nothing(bus, body) -> None:
    bus.serve(lambda c, m, a: "fine")
    send_raw(bus, body)
    assert bus.call("after") == "fine"
    assert bus.depth() == 0


def test_a_cast_that_fails_is_kept_with_the_reason(bus, victims) -> None:
    victims.start("h1")
    bus.cast("effect", wrong=1)
    (headers,) = dead_letters(bus)
    assert "TypeError" in headers["reason"]


def test_an_idempotent_cast_that_fails_is_tried_three_times(bus) -> None:
    tries = green.Queue()

    def flaky(c, method, args):
        tries.put(method)
        raise OSError("not now")

    flaky.rpc_idempotent = True
    bus.serve(flaky, method_of=lambda name: flaky)
    bus.cast("flaky")
    assert [tries.get(timeout=5) for _ in range(3)] == ["flaky"] * 3
    with pytest.raises(green.QueueEmpty):
        tries.get(timeout=0.1)


def test_a_reply_to_a_caller_that_is_gone_costs_the_service_nothing(bus, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold() if m == "slow" else m)
    call = green.spawn(bus.call, "slow")
    latch.wait_begun()
    call.kill()
    rpc.cleanup()
    latch.go.send()
    assert server.wait(5)
    assert bus.call("quick") == "quick"
