from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova import green, loopingcall
from nova.loopingcall import BackOffLoopingCall, DynamicLoopingCall, LoopingCall, LoopingCallDone


class Counter:
    """A function that counts, does what `script` says for a call, and is done after `limit` calls."""

    def __init__(self, limit: int = 3, script: dict[int, Any] | None = None, result: Any = None) -> None:
        self.times: list[float] = []
        self.limit = limit
        self.script = script or {}
        self.result = result

    def __call__(self) -> Any:
        self.times.append(time.monotonic())
        action = self.script.get(len(self.times))
        if isinstance(action, BaseException):
            raise action
        if len(self.times) >= self.limit:
            raise LoopingCallDone("value")
        return self.result


def test_a_loop_ends_with_the_value_of_looping_call_done() -> None:
    counter = Counter()
    loop = LoopingCall(counter)
    assert loop.start(0.001).wait() == "value"
    assert loop.wait() == "value"
    assert len(counter.times) == 3
    assert not loop.is_running


def test_arguments_are_passed_on() -> None:
    def function(a: int, b: int = 0) -> None:
        raise LoopingCallDone((a, b))

    assert LoopingCall(function, 1, b=2).start(1).wait() == (1, 2)


def test_without_now_the_first_call_comes_after_the_interval() -> None:
    began_s = time.monotonic()
    counter = Counter(1)
    LoopingCall(counter).start(0.05, now=False).wait()
    assert counter.times[0] - began_s >= 0.05


def test_an_exception_ends_the_loop_and_reaches_whoever_waits() -> None:
    loop = LoopingCall(Counter(script={2: ValueError("x")}))
    loop.start(0.001)
    with pytest.raises(ValueError, match="x"):
        loop.wait()
    assert not loop.is_running


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), green.Timeout(None)])
def test_a_loop_of_a_service_survives_an_exception_of_any_class(error: BaseException) -> None:
    loop = LoopingCall(Counter(script={1: error}))
    assert loop.start(0.001, stop_on_exception=False).wait() == "value"
    assert loop.failures == 1


def test_stop_interrupts_a_long_sleep() -> None:
    counter = Counter()
    loop = LoopingCall(counter)
    loop.start(600)
    while not counter.times:
        green.sleep(0)
    began_s = time.monotonic()
    loop.stop()
    assert loop.wait() is True
    assert time.monotonic() - began_s < 0.1


def test_stop_lets_the_call_that_runs_finish_and_begins_no_other() -> None:
    began, finish, log = green.Event(), green.Event(), []

    def function() -> None:
        began.send(None)
        finish.wait()
        log.append("finished")

    loop = LoopingCall(function)
    loop.start(0)
    began.wait()
    loop.stop()
    finish.send(None)
    assert loop.wait() is True
    assert log == ["finished"]


def test_stop_from_inside_the_call_ends_the_loop() -> None:
    loops: list[LoopingCall] = []
    loops.append(LoopingCall(lambda: loops[0].stop()))
    assert loops[0].start(600).wait() is True


def test_a_loop_cannot_be_started_twice_at_once() -> None:
    loop = LoopingCall(lambda: None)
    loop.start(600)
    with pytest.raises(RuntimeError):
        loop.start(600)
    loop.stop()


@given(st.floats(0, 1e6), st.floats(0.001, 1e3), st.floats(0, 1e6))
def test_the_next_time_is_in_the_future_and_at_most_one_interval_away(
    due_s: float, interval_s: float, after_s: float
) -> None:
    now_s = due_s + after_s
    following_s = loopingcall.next_due_s(due_s, interval_s, now_s)
    assert now_s - 1e-6 <= following_s <= now_s + interval_s + 1e-6


def test_a_dynamic_loop_sleeps_as_long_as_the_call_says_but_no_longer_than_the_maximum() -> None:
    counter = Counter(result=600)
    assert DynamicLoopingCall(counter).start(periodic_interval_max=0.02).wait() == "value"
    assert 0.03 < counter.times[-1] - counter.times[0] < 5


def test_a_back_off_loop_slows_down_and_a_true_result_sets_it_back() -> None:
    counter = Counter(limit=5)
    BackOffLoopingCall(counter).start(starting_interval=0.01, jitter=1.0).wait()
    gaps = [later - earlier for earlier, later in zip(counter.times, counter.times[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 0.15
    counter = Counter(limit=5, result=True)
    BackOffLoopingCall(counter).start(starting_interval=0.01, jitter=1.0).wait()
    assert counter.times[-1] - counter.times[0] < gaps[-1]


def test_a_back_off_loop_that_comes_to_no_end_times_out() -> None:
    loop = BackOffLoopingCall(lambda: False)
    loop.start(starting_interval=0.01, timeout=0.05)
    with pytest.raises(loopingcall.LoopingCallTimeOut):
        loop.wait()
