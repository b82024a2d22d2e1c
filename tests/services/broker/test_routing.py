"""Exchanges, the backlog and the ring of consumers, against models that are slow and plain."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nova.broker import properties
from nova.broker.backlog import Backlog, PriorityBacklog
from nova.broker.consumer import Ring
from nova.broker.exchange import Binding, Exchange
from nova.broker.heartbeat import Heartbeat
from nova.broker.message import PLAIN, Message
from nova.broker.output import CONGESTED_BYTES, Output

WORDS = st.lists(st.sampled_from(["a", "b", ""]), max_size=5).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=5).map(".".join)
NO_HEADER = properties.encode(0, {})


def matches(pattern: str, key: str) -> bool:
    """By regular expression, word for word; each word is followed by a dot."""
    parts = {"*": r"[^.]*\.", "#": r"([^.]*\.)*"}
    expression = "".join(parts.get(word, re.escape(word) + r"\.") for word in pattern.split(".") if pattern)
    return re.fullmatch(expression, key + "." if key else "") is not None


def exchange_with(type: str, keys: list[str]) -> tuple[Exchange, list[Binding]]:
    exchange = Exchange("x", type)
    bindings = [Binding(exchange, Exchange(f"to-{i}", "fanout"), key, {}) for i, key in enumerate(keys)]
    for binding in bindings:
        assert exchange.add(binding)
    return exchange, bindings


@given(st.lists(PATTERNS, max_size=6), WORDS, st.sets(st.integers(0, 5)))
def test_topic_patterns_match_like_their_regular_expressions(
    patterns: list[str], key: str, removed: set[int]
) -> None:
    exchange, bindings = exchange_with("topic", patterns)
    for index in removed & set(range(len(bindings))):
        assert exchange.remove(bindings[index])
    expected = {
        id(each) for i, each in enumerate(bindings) if i not in removed and matches(each.routing_key, key)
    }
    assert {id(each) for each in exchange.match(key, NO_HEADER)} == expected


def test_many_hashes_do_not_take_for_ever() -> None:
    exchange, _ = exchange_with("topic", [".".join(["#", "a"] * 12)])
    assert not list(exchange.match(".".join(["a"] * 30 + ["b"]), NO_HEADER))


def test_removing_all_bindings_leaves_nothing_in_the_trie() -> None:
    exchange, bindings = exchange_with("topic", ["a.*.b", "a.#", "#", ""])
    for binding in bindings:
        exchange.remove(binding)
    assert exchange._router._root.children == {}
    assert not exchange.remove(bindings[0])


@given(st.lists(st.sampled_from(["a", "b"]), max_size=5), st.sampled_from(["a", "b", "c"]))
def test_direct_and_fanout(keys: list[str], key: str) -> None:
    direct, to_direct = exchange_with("direct", keys)
    assert list(direct.match(key, NO_HEADER)) == [each for each in to_direct if each.routing_key == key]
    fanout, to_fanout = exchange_with("fanout", keys)
    assert list(fanout.match(key, NO_HEADER)) == to_fanout


def message(number: int, priority: int = 0) -> Message:
    made = Message("", "q", NO_HEADER, b"", PLAIN._replace(priority=priority))
    made.number = number
    return made


@given(st.lists(st.tuples(st.sampled_from(["append", "pop", "back"]), st.integers(0, 4)), max_size=60))
def test_a_backlog_is_sorted_by_priority_and_number(steps: list[tuple[str, int]]) -> None:
    backlogs: list[Any] = [Backlog(), PriorityBacklog(3)]
    orders = [lambda each: each.number, lambda each: (-min(each.facts.priority, 3), each.number)]
    for backlog, order in zip(backlogs, orders, strict=True):
        model: list[Message] = []
        out: list[Message] = []
        for number, (step, choice) in enumerate(steps):
            if step == "append":
                model.append(message(number, choice))
                backlog.append(model[-1])
            elif step == "pop" and model:
                model.sort(key=order)
                assert backlog.first() is model[0]
                assert backlog.pop() is model[0]
                out.append(model.pop(0))
            elif step == "back" and out:
                model.append(out.pop(choice % len(out)))
                backlog.put_back(model[-1])
            assert len(backlog) == len(model)
        assert list(backlog) == sorted(model, key=order)
        assert backlog.clear() == sorted(model, key=order)
        assert len(backlog) == 0


def consumer(priority: int = 0, ready: bool = True) -> Any:
    return SimpleNamespace(priority=priority, is_ready=lambda: ready)


def test_consumers_of_one_priority_take_turns_and_lower_ones_wait() -> None:
    ring = Ring(single_active=False)
    low, first, second = consumer(-1), consumer(), consumer()
    for each in (low, first, second):
        ring.add(each)
    assert [ring.next_ready() for _ in range(4)] == [first, second, first, second]
    ring.remove(first)
    ring.remove(second)
    assert ring.next_ready() is low
    ring.remove(low)
    assert ring.next_ready() is None


def test_one_active_consumer_does_not_hand_over_because_it_is_busy() -> None:
    ring = Ring(single_active=True)
    busy, idle = consumer(ready=False), consumer(priority=9)
    ring.add(busy)
    ring.add(idle)
    assert ring.next_ready() is None
    ring.remove(busy)
    assert ring.next_ready() is idle


def test_a_heartbeat_is_due_only_in_silence_and_four_silent_ticks_are_death() -> None:
    beat = Heartbeat(10)
    assert beat.tick_s == 5
    assert [beat.tick(heard, said) for heard, said in ((1, 1), (1, 1), (1, 9), (1, 9))] == [
        False,
        True,
        False,
        True,
    ]
    assert not beat.is_dead
    beat.tick(1, 9)
    assert beat.is_dead
    beat.tick(2, 9)
    assert not beat.is_dead


@given(st.lists(st.tuples(st.integers(0, CONGESTED_BYTES), st.floats(0, 1)), max_size=12))
def test_output_is_congested_while_much_is_unsent_and_says_when_it_is_over(
    steps: list[tuple[int, float]],
) -> None:
    heard: list[str] = []
    output = Output(lambda: heard.append("output"), lambda: heard.append("drained"))
    unsent = taken = 0
    for added, part in steps:
        output.add(bytes(added))
        unsent += added
        taken += len(output.take())
        assert taken == unsent
        assert not (unsent > CONGESTED_BYTES and not output.is_congested)
        was_congested, sent = output.is_congested, int(unsent * part)
        drained = heard.count("drained")
        output.note_sent(sent)
        unsent -= sent
        taken -= sent
        assert heard.count("drained") - drained == int(was_congested and unsent < CONGESTED_BYTES // 2)
