"""The parts of RPC that know no broker: envelopes, frames, redelivery, replies kept, retries."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova import exception
from nova.broker import protocol
from nova.rpc import errors, frames, link, remote, topology, wire
from nova.rpc.answered import Answered
from nova.rpc.redelivery import MAX_TRIES, Verdict, judge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=3), st.dictionaries(st.text(), JSON, max_size=3))
def test_a_request_survives_its_bytes(method, args, context) -> None:
    request = wire.Request(method, args, context, "u-1", "u-1", 5.0, 1.0, 9.5, 2, 1)
    assert wire.decode_request(wire.encode_request(request)) == request


def test_a_cast_carries_nothing_of_a_call() -> None:
    body = wire.encode_request(wire.Request("m", {}, {}, "u"))
    assert body == b'{"method":"m","args":{},"_unique_id":"u"}'


@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoders_raise_anything_else_than_malformed(body) -> None:
    for decode in (wire.decode_request, wire.decode_reply):
        try:
            decode(body)
        except errors.MalformedMessage:
            pass


@pytest.mark.parametrize(
    "field",
    ['"_timeout":"5"', '"_deadline":true', '"_depth":1.5', '"_attempt":null', '"_unique_id":5', '"_msg_id":[]'],
)
def test_a_header_of_the_wrong_type_is_refused(field) -> None:
    with pytest.raises(errors.MalformedMessage):
        wire.decode_request(b'{"method":"m","args":{},%s}' % field.encode())


def test_deeply_nested_json_is_malformed_and_no_crash() -> None:
    with pytest.raises(errors.MalformedMessage):
        wire.decode_request(b"[" * 100_000)


@pytest.mark.parametrize(
    ("now", "redelivered", "attempt", "is_stale"),
    [
        (4.9, False, 0, False),
        (5.1, False, 0, True),  # the caller heard nothing for its timeout and gave up
        (5.1, True, 0, False),  # it ran before, so the caller may have heard that it is alive
        (5.1, False, 1, False),
        (20.1, True, 1, True),  # the deadline holds for all
    ],
)
def test_a_request_is_stale_once_nobody_waits_for_it(now, redelivered, attempt, is_stale) -> None:
    request = wire.Request("m", {}, {}, "u", "u", timeout_s=5.0, sent=0.0, deadline=20.0, attempt=attempt)
    assert request.is_stale(now, redelivered) is is_stale


def test_a_deadly_message_is_begun_three_times_whichever_way_it_takes() -> None:
    begun, attempt, is_suspect, redelivered = 0, 0, False, False
    for _ in itertools.count():
        verdict = judge(redelivered, attempt, is_suspect)
        if verdict is Verdict.RUN:
            begun, redelivered = begun + 1, True  # it dies, and comes again
        elif verdict is Verdict.BURY:
            break
        else:
            attempt, redelivered, is_suspect = attempt + 1, False, verdict is Verdict.ALONE
    assert begun == MAX_TRIES


@pytest.mark.parametrize("attempt", range(5))
def test_only_what_comes_again_from_the_suspects_is_buried(attempt) -> None:
    assert judge(True, attempt, True) is Verdict.BURY
    assert judge(True, attempt, False) is not Verdict.BURY
    assert judge(False, attempt, True) is Verdict.RUN


def test_replies_are_kept_within_their_bounds_the_latest_ones() -> None:
    kept = Answered(max_count=3, max_bytes=100)
    for number in range(5):
        kept.add(str(number), b"x" * 10)
    assert [kept.get(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    kept.add("large", b"x" * 90)
    assert [name for name in ("3", "4", "large") if kept.get(name)] == ["4", "large"]
    kept.add("larger", b"x" * 101)
    assert kept.get("larger") is None


@given(
    st.text(max_size=60),
    st.text(max_size=60),
    st.booleans(),
    st.none() | st.text(max_size=60),
    st.integers(0, 2**40),
)
def test_a_content_header_gives_back_what_it_was_made_of(correlation, reply_to, persistent, absent, size) -> None:
    header = frames.header(size, persistent, correlation, reply_to)
    assert frames.read_header(header) == (size, correlation, reply_to)
    assert frames.read_header(frames.header(size, persistent, absent, None)) == (size, absent, None)
    table = frames.header_with_table(size, persistent, correlation, reply_to, {"reason": "r", "tries": 3})
    assert frames.read_header(table) == (size, correlation, reply_to)


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 100_000])
def test_a_body_is_put_together_however_it_was_cut(size) -> None:
    body = bytes(size)
    deliver = (
        protocol.U32.pack(protocol.BASIC_DELIVER) + protocol.shortstr("tag") + protocol.U64.pack(7) + b"\x01"
    )
    data = protocol.content(1, deliver, frames.header(size, True, "c", "r"), body, 4096)
    assembler, contents = frames.Assembler(), []
    splitter = protocol.FrameSplitter()
    for start in range(0, len(data), 1000):
        for kind, channel, payload in splitter.feed(data[start : start + 1000]):
            if kind == protocol.METHOD:
                assembler.begin(channel, payload)
                continue
            take = assembler.head if kind == protocol.HEADER else assembler.body
            contents.append(take(channel, payload))
    (content,) = [content for content in contents if content is not None]
    assert content[1] == body
    assert frames.read_deliver(content[0]) == ("tag", 7, True)


def test_retries_grow_to_a_ceiling_and_are_spread() -> None:
    delays = [link.retry_delay_s(failures, 1.0) for failures in range(12)]
    assert delays == sorted(delays)
    assert delays[-1] == link.RETRY_MAX_S
    assert link.retry_delay_s(3, 0.0) == link.retry_delay_s(3, 1.0) / 2


def test_an_exception_outside_the_allow_list_or_no_exception_at_all_is_a_remote_error() -> None:
    failure = remote.describe(exception.NotFound("gone"))
    assert type(remote.rebuild(failure, ["nova.exception"])) is exception.NotFound
    assert type(remote.rebuild(failure, [])) is errors.RemoteError
    for name in ("nova.exception.EXIT_CLEAN", "nova.exception.annotations", "os.system", "SystemExit", ""):
        assert type(remote.rebuild([name, "v", "t"], ["nova.exception", "builtins"])) is errors.RemoteError


def test_a_remote_error_keeps_its_type_through_a_second_service() -> None:
    try:
        raise errors.RemoteError("ValueError", "bad", "far traceback")
    except errors.RemoteError as error:
        again = remote.rebuild(remote.describe(error), ["nova.rpc.errors"])
    assert (again.exc_type, again.value) == ("ValueError", "bad")
    assert "far traceback" in again.traceback


def test_every_shared_queue_is_durable_and_only_a_process_own_queue_is_exclusive() -> None:
    plan = topology.server_plan("nova", "compute", "h1", "p", 5, 60.0)
    assert [queue.name for queue in plan.queues if not queue.durable] == ["compute_fanout_p"]
    assert all(queue.durable != queue.exclusive for queue in plan.queues)


def test_a_plan_for_draining_keeps_the_nested_lanes_alone() -> None:
    plan = topology.server_plan("nova", "compute", "h1", "p", 5, 60.0)
    drained = plan.only(topology.LANES)
    assert {consumer.tag for consumer in drained.consumers} == topology.LANES
    assert not any(queue.exclusive for queue in drained.queues)
    assert {consumer.tag for consumer in plan.consumers} == topology.DRAINED | topology.LANES
