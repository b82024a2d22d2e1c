"""Waiting for one answer: in order, once, and not any more after a timeout."""

from __future__ import annotations

import pytest
from nova import green
from nova.rpc.latch import Latch


def test_who_waits_goes_on_with_the_answer_and_in_the_order_of_answers() -> None:
    latches, heard = [Latch() for _ in range(3)], []
    waiting = [green.spawn(lambda each=each: heard.append(each.wait())) for each in latches]
    green.sleep(0)
    for number in (2, 0, 1):
        latches[number].send(number)
    assert heard == []
    for each in waiting:
        each.wait()
    assert heard == [2, 0, 1]


def test_an_answer_that_is_there_already_is_not_waited_for() -> None:
    answered, failed = Latch(), Latch()
    answered.send("yes")
    failed.send_exception(ValueError("no"))
    assert answered.ready()
    assert answered.wait() == "yes"
    with pytest.raises(ValueError, match="no"):
        failed.wait()


def test_who_timed_out_is_not_woken_by_a_late_answer() -> None:
    latch, trace = Latch(), []

    def impatient() -> None:
        try:
            with green.Timeout(0.001):
                latch.wait()
        except green.Timeout:
            trace.append("timeout")
        green.sleep(0.02)
        trace.append("slept")

    waiting = green.spawn(impatient)
    while not trace:
        green.sleep(0.001)
    latch.send("late")
    waiting.wait()
    assert trace == ["timeout", "slept"]


def test_who_is_killed_between_the_answer_and_its_turn_does_not_run() -> None:
    latch, other, heard = Latch(), Latch(), []
    waiting = green.spawn(lambda: heard.append(latch.wait()))
    another = green.spawn(lambda: heard.append(other.wait()))
    green.sleep(0)
    latch.send("one")
    other.send("two")
    waiting.kill()
    another.wait()
    assert heard == ["two"]


def test_one_that_ends_with_an_exception_keeps_no_other_from_going_on() -> None:
    first, second, heard = Latch(), Latch(), []

    def exits() -> None:
        first.wait()
        raise ValueError("of a greenlet that nobody looks after")

    green.schedule(green.greenlet(exits, green.hubs.get_hub().greenlet).switch)
    waiting = green.spawn(lambda: heard.append(second.wait()))
    green.sleep(0)
    first.send()
    second.send("went on")
    waiting.wait()
    assert heard == ["went on"]
