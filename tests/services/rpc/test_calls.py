"""What a caller and a service may rely on, whatever the broker and the transport."""

from __future__ import annotations

import time

import pytest
from nova import context, exception, green, rpc
from nova.flags import FLAGS


def echo(ctxt, method, args):
    return {"method": method, "args": args, "user": ctxt.user_id, "request": ctxt.request_id}


def test_a_call_returns_what_the_method_returns_and_carries_the_context(bus) -> None:
    bus.serve(echo)
    answer = bus.call("run", x=[1, None, {"ä": True}])
    assert answer == {"method": "run", "args": {"x": [1, None, {"ä": True}]}, "user": "user", "request": "req-1"}


def test_a_call_to_a_host_reaches_that_host_only(bus) -> None:
    bus.serve(lambda c, m, a: "first", host="h1")
    bus.serve(lambda c, m, a: "second", host="h2")
    assert {bus.call("who", host="h1") for _ in range(4)} == {"first"}
    assert {bus.call("who", host="h2") for _ in range(4)} == {"second"}


def test_calls_to_the_topic_are_spread_over_its_servers(bus) -> None:
    bus.serve(lambda c, m, a: "first", host="h1")
    bus.serve(lambda c, m, a: "second", host="h2")
    assert {bus.call("who") for _ in range(10)} == {"first", "second"}


def test_slow_calls_are_shared_evenly_between_two_servers(bus) -> None:
    counts = {"h1": 0, "h2": 0}

    def server_of(host):
        def work(c, m, a):
            counts[host] += 1
            green.sleep(0.05)

        return work

    for host in counts:
        bus.serve(server_of(host), host=host)
    for call in [green.spawn(bus.call, "work") for _ in range(100)]:
        call.wait()
    assert 45 <= counts["h1"] <= 55, counts


def test_a_call_that_a_timeout_of_the_caller_cut_short_leaves_the_next_its_own_answer(bus) -> None:
    bus.serve(lambda c, m, a: green.sleep(a["seconds"]) or a["n"])
    assert bus.call("echo", n=0, seconds=0) == 0
    for n in range(1, 6):
        with pytest.raises(green.Timeout), green.Timeout(0.02):
            bus.call("echo", n=-n, seconds=0.04)
        assert bus.call("echo", n=n, seconds=0.04) == n


def test_a_cast_runs_once_and_returns_before_the_method_does(bus, latch) -> None:
    bus.serve(lambda c, m, a: latch.hold(a))
    bus.cast("work", n=1)
    assert latch.wait_begun() == [{"n": 1}]
    latch.go.send()


def test_a_fanout_reaches_every_server(bus) -> None:
    heard = green.Queue()
    bus.serve(lambda c, m, a: heard.put(("h1", m)), host="h1")
    bus.serve(lambda c, m, a: heard.put(("h2", m)), host="h2")
    rpc.fanout_cast(bus.context, bus.topic, {"method": "notice", "args": {}})
    assert {heard.get(timeout=5), heard.get(timeout=5)} == {("h1", "notice"), ("h2", "notice")}


def test_a_fanout_before_any_listener_is_no_error(bus) -> None:
    rpc.fanout_cast(bus.context, bus.topic, {"method": "notice"})
    bus.serve(echo)
    assert bus.call("still works")["method"] == "still works"


def test_a_multicall_gives_each_item_as_it_comes(bus, latch) -> None:
    def count(c, method, args):
        yield 1
        latch.hold()
        yield 2

    bus.serve(count)
    items = rpc.multicall(bus.context, bus.topic, {"method": "count"}, timeout=5)
    assert next(items) == 1
    latch.wait_begun()
    latch.go.send()
    assert list(items) == [2]


def test_a_multicall_of_a_plain_method_gives_its_one_result(bus) -> None:
    bus.serve(lambda c, m, a: 7)
    assert list(rpc.multicall(bus.context, bus.topic, {"method": "seven"})) == [7]


def test_a_call_of_a_method_that_yields_gives_the_last_item(bus) -> None:
    bus.serve(lambda c, m, a: iter([1, 2, 3]))
    assert bus.call("count") == 3


def test_a_multicall_of_a_method_that_fails_halfway_raises_after_the_items(bus) -> None:
    def count(c, method, args):
        yield 1
        raise KeyError("no more")

    bus.serve(count)
    items = rpc.multicall(bus.context, bus.topic, {"method": "count"})
    assert next(items) == 1
    with pytest.raises(rpc.RemoteError, match="no more"):
        next(items)


def test_an_exception_arrives_with_its_type_its_text_and_the_remote_traceback(bus) -> None:
    def explode(c, method, args):
        raise ValueError("too hot")

    bus.serve(explode)
    with pytest.raises(rpc.RemoteError) as caught:
        bus.call("heat")
    assert caught.value.exc_type == "ValueError"
    assert caught.value.value == "too hot"
    assert "in explode" in caught.value.traceback


def test_an_exception_of_an_allowed_module_is_raised_as_what_it_was(bus) -> None:
    def refuse(c, method, args):
        raise exception.ApiError("not you", code="Forbidden")

    bus.serve(refuse)
    with pytest.raises(exception.ApiError, match="not you") as caught:
        bus.call("ask")
    assert caught.value.code == "Forbidden"
    assert isinstance(caught.value.__cause__, rpc.RemoteError)
    with FLAGS.override(allowed_rpc_exception_modules=[]), pytest.raises(rpc.RemoteError):
        bus.call("ask")


def test_a_method_that_is_not_there_is_told_from_one_that_fails(bus) -> None:
    def dispatch(c, method, args):
        raise rpc.NoSuchMethod(f"no public method {method}")

    bus.serve(dispatch)
    with pytest.raises(rpc.NoSuchMethod, match="no public method kill"):
        bus.call("kill")


def test_a_timeout_inside_the_method_is_its_failure_and_not_the_callers(bus) -> None:
    def hang(c, method, args):
        with green.Timeout(0.01):
            green.sleep(5)

    bus.serve(hang)
    with pytest.raises(rpc.RemoteError, match="Timeout"):
        bus.call("hang")


def test_a_result_that_json_cannot_carry_is_an_error_at_the_caller(bus) -> None:
    bus.serve(lambda c, m, a: {1, 2})
    with pytest.raises(rpc.RemoteError, match="set is not JSON serializable"):
        bus.call("set")


def test_arguments_that_json_cannot_carry_raise_before_anything_is_sent(bus) -> None:
    bus.serve(echo)
    with pytest.raises(TypeError):
        bus.call("send", x=object())
    assert bus.call("fine")["method"] == "fine"


@pytest.mark.parametrize("send", [rpc.call, rpc.cast])
def test_a_topic_that_nobody_listens_on_is_reported_in_under_a_second(bus, send) -> None:
    began_s = time.monotonic()
    with pytest.raises(rpc.NoSuchTopic, match="nobody"):
        send(bus.context, "nobody", {"method": "x", "args": {}})
    assert time.monotonic() - began_s < 1


def test_a_slow_call_does_not_delay_another(bus, latch) -> None:
    bus.serve(lambda c, m, a: latch.hold(m) if m == "slow" else m)
    slow = green.spawn(bus.call, "slow")
    latch.wait_begun()
    assert [bus.call("quick") for _ in range(20)] == ["quick"] * 20
    latch.go.send("done")
    assert slow.wait() == "done"


def test_a_silent_service_is_given_up_after_the_timeout(bus, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold())
    server._sweep.note = lambda due_s: None  # a service that does not say it is alive
    began_s = time.monotonic()
    with pytest.raises(rpc.RPCTimeout, match=r"silent for 0\.3 s"):
        bus.call("hang", timeout=0.3)
    assert 0.25 < time.monotonic() - began_s < 2
    latch.go.send()


def test_a_long_call_is_kept_alive_beyond_its_timeout(bus) -> None:
    bus.serve(lambda c, m, a: green.sleep(0.5) or "done")
    assert bus.call("long", timeout=0.2) == "done"


def test_the_limit_ends_a_call_that_is_still_alive(bus) -> None:
    bus.serve(lambda c, m, a: green.sleep(3.0))
    with FLAGS.override(rpc_call_limit=1.2), pytest.raises(rpc.RPCTimeout, match="deadline"):
        bus.call("endless", timeout=1.0)


def test_a_call_that_nobody_waits_for_any_more_is_not_run(bus) -> None:
    ran = []
    bus.serve(lambda c, m, a: ran.append(m), host="h1").stop()
    with pytest.raises(rpc.RPCTimeout):
        bus.call("late", timeout=0.2)
    bus.serve(lambda c, m, a: ran.append(m), host="h2")
    bus.call("next")
    assert ran == ["next"]


def test_nested_calls_at_ten_times_the_pool_size_finish(bus) -> None:
    def dispatch(ctxt, method, args):
        level = args["level"]
        if not level:
            return 1
        return 1 + rpc.call(ctxt, bus.topic, {"method": "nest", "args": {"level": level - 1}}, timeout=8)

    bus.serve(dispatch, prefetch=2)
    calls = [green.spawn(bus.call, "nest", level=2) for _ in range(20)]
    assert [call.wait() for call in calls] == [3] * 20


def test_a_nested_call_inherits_the_deadline(bus) -> None:
    deadlines = []

    def dispatch(ctxt, method, args):
        from nova.rpc import serving

        deadlines.append(serving.current().deadline)
        if method == "outer":
            rpc.call(ctxt, bus.topic, {"method": "inner"})

    bus.serve(dispatch)
    with FLAGS.override(rpc_call_limit=5.0):
        bus.call("outer")
    outer, inner = deadlines
    assert inner == pytest.approx(outer, abs=0.5)


def test_ten_callers_with_a_megabyte_each_get_their_own_back(bus) -> None:
    bus.serve(lambda c, m, a: a["text"])
    texts = [str(n) * 1_000_000 for n in range(10)]
    calls = [green.spawn(bus.call, "echo", text=text) for text in texts]
    assert [call.wait() for call in calls] == texts


def test_clients_prepare_servers_and_timeouts(bus) -> None:
    bus.serve(lambda c, m, a: [m, a], host="h1")
    client = rpc.Client(bus.topic)
    assert client.call(bus.context, "m", a=1) == ["m", {"a": 1}]
    assert client.prepare(server="h1", timeout=5).call(bus.context, "m") == ["m", {}]
    assert list(client.prepare(server="h1").multicall(bus.context, "m")) == [["m", {}]]
    client.cast(bus.context, "m")
    client.fanout(bus.context, "m")


def test_a_call_without_a_context_or_with_a_dictionary_works(bus) -> None:
    bus.serve(lambda c, m, a: c.user_id)
    assert rpc.call(None, bus.topic, {"method": "who"}) is None
    assert rpc.call({"user_id": "u", "new_field": 1}, bus.topic, {"method": "who"}) == "u"


def test_calls_can_be_made_again_after_cleanup(bus) -> None:
    bus.serve(echo)
    bus.call("one")
    rpc.cleanup()
    rpc.cleanup()
    assert bus.call("two")["method"] == "two"


def test_cleanup_ends_the_calls_that_wait(bus, latch) -> None:
    bus.serve(lambda c, m, a: latch.hold())
    waiting = green.spawn(bus.call, "hold")
    latch.wait_begun()
    rpc.cleanup()
    with pytest.raises(rpc.LinkClosed):
        waiting.wait()
    latch.go.send()


def test_the_current_context_inside_a_method_is_the_callers(bus) -> None:
    bus.serve(lambda c, m, a: context.current().request_id)
    assert bus.call("who") == "req-1"


def test_inflight_lists_what_runs_and_wait_tells_when_nothing_does(bus, latch) -> None:
    server = bus.serve(lambda c, m, a: latch.hold())
    call = green.spawn(bus.call, "work")
    latch.wait_begun()
    (running,) = server.inflight
    assert (running.method, running.kind, running.request_id, running.redelivered) == (
        "work",
        "call",
        "req-1",
        False,
    )
    assert running.age_s >= 0
    assert not server.wait(0.05)
    latch.go.send()
    call.wait()
    assert server.wait(5)
    assert server.inflight == []


@pytest.mark.parametrize("send", [rpc.call, rpc.cast, rpc.fanout_cast, rpc.multicall])
def test_a_topic_that_no_broker_can_carry_is_refused_by_name_and_limit(bus, send) -> None:
    with pytest.raises(rpc.TopicTooLong, match=r"topic tttt.*: .* at most 255 are possible"):
        send(context.get_admin_context(), "t" * 256, {"method": "run"})
    bus.serve(echo)
    assert bus.call("run")["method"] == "run"


def test_a_service_cannot_listen_on_a_topic_that_is_too_long_with_its_host() -> None:
    with pytest.raises(rpc.TopicTooLong, match="at most 255 are possible"):
        rpc.get_server("topic", "h" * 250, echo)
