"""Acknowledgements that are merged settle exactly what was to be acknowledged."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from nova.rpc.acks import Acks


class Broker:
    """What a channel has delivered and nobody has settled."""

    def __init__(self) -> None:
        self.unacked: list[int] = []

    def ack(self, tag: int, is_multiple: bool) -> None:
        assert tag in self.unacked, "an unknown delivery tag closes the channel"
        self.unacked = [each for each in self.unacked if (each > tag if is_multiple else each != tag)]


STEPS = st.lists(st.tuples(st.sampled_from(["deliver", "no-ack", "ack", "requeue", "write"]), st.integers(0, 9)))


@given(STEPS)
def test_what_is_acknowledged_is_settled_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    acks, broker, held, written = Acks(), Broker(), [], []
    for tag, (step, number) in enumerate(steps, 1):
        if step == "deliver":
            acks.outstanding[tag] = None
            broker.unacked.append(tag)
            held.append(tag)
        elif step == "ack" and held:
            chosen = held.pop(number % len(held))
            acks.due.add(chosen)
            written.append(chosen)
        elif step == "requeue" and held:
            chosen = held.pop(number % len(held))
            acks.outstanding.pop(chosen)
            broker.ack(chosen, False)
        elif step == "write":
            for frame in acks.take():
                broker.ack(*frame)
            assert broker.unacked == held
            written.clear()
    assert sorted(broker.unacked) == sorted([*held, *written])


def test_a_hundred_in_a_row_are_one_frame() -> None:
    acks = Acks()
    acks.outstanding = dict.fromkeys(range(1, 101))
    acks.due = set(range(1, 101))
    assert acks.take() == [(100, True)]
    assert not acks.outstanding
    assert acks.take() == []


def test_what_an_older_one_is_before_is_acknowledged_by_itself() -> None:
    acks = Acks()
    acks.outstanding = dict.fromkeys((1, 2, 3, 4))
    acks.due = {1, 3, 4}
    assert acks.take() == [(1, False), (3, False), (4, False)]
    acks.due = {2}
    assert acks.take() == [(2, False)]
