"""The life of a service: every sequence of events up to five long, and the histories that matter."""

from __future__ import annotations

import itertools

import pytest
from nova import lifecycle
from nova.lifecycle import (
    CLOSE_TIMEOUT_S,
    REPORT_EVERY_S,
    Action,
    Closed,
    Effect,
    Event,
    Idle,
    Kill,
    Life,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
    Tick,
    Wake,
    decide,
    step,
)

ORDER = list(State)
EVENTS: list[Event] = [Start(), Started(), StartFailed(7), Stop(8.0), Kill(), Idle(), Closed(), Tick()]


def run(*events: tuple[Event, float] | Event) -> tuple[Life, list[Effect | Wake]]:
    life, done = Life(), []
    for item in events:
        event, now_s = item if isinstance(item, tuple) else (item, 0.0)
        life, effects = step(life, event, now_s)
        done += effects
    return life, done


def effects(*events: tuple[Event, float] | Event) -> list[Effect]:
    return [effect for effect in run(*events)[1] if isinstance(effect, Effect)]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_every_history_keeps_the_invariants(length: int) -> None:
    for history in itertools.product(EVENTS, repeat=length):
        life, done = Life(), []
        for position, event in enumerate(history):
            now_s = position * 3.0
            before = life
            life, now_done = step(life, event, now_s)
            done += now_done
            assert ORDER.index(life.state) >= ORDER.index(before.state), history
            assert all(effect.at_s > now_s for effect in now_done if isinstance(effect, Wake)), history
            if before.state is State.STOPPED:
                assert (life, now_done) == (before, ()), history
            if life.state in (State.DRAINING, State.CLOSING) and before.state is not life.state:
                assert any(isinstance(effect, Wake) for effect in now_done), history
        for effect in (Effect.OPEN, Effect.SAY_READY, Effect.DRAIN, Effect.CLOSE, Effect.FINISH):
            assert done.count(effect) <= 1, history
        assert (Effect.FINISH in done) == (life.state is State.STOPPED), history
        assert Kill() not in history or life.state is State.STOPPED, history


def test_a_stop_lets_finish_what_is_in_flight_and_ends_clean() -> None:
    life, _ = run(Start(), Started(), Stop(8.0), (Idle(), 5.0), (Closed(), 5.1))
    assert (life.state, life.exit_code) == (State.STOPPED, 0)
    assert effects(Start(), Started(), Stop(8.0), Idle(), Closed()) == [
        Effect.OPEN,
        Effect.SAY_READY,
        Effect.SAY_STOPPING,
        Effect.DRAIN,
        Effect.CLOSE,
        Effect.FINISH,
    ]


def test_a_second_soft_stop_does_not_move_the_deadline() -> None:
    once, _ = run(Start(), Started(), Stop(8.0))
    twice, _ = run(Start(), Started(), Stop(8.0), (Stop(100.0), 4.0))
    assert once == twice


def test_a_drain_past_its_deadline_reports_severs_and_ends_with_four() -> None:
    life, done = run(Start(), Started(), Stop(8.0), (Tick(), 8.0))
    assert life.state is State.CLOSING
    assert [e for e in done if isinstance(e, Effect)][-3:] == [Effect.REPORT, Effect.SEVER, Effect.CLOSE]
    assert step(life, Closed(), 9.0)[0] == Life(State.STOPPED, 4)


def test_a_long_drain_reports_every_ten_seconds_until_its_deadline() -> None:
    life, reports, at_s = run(Start(), Started(), Stop(25.0))[0], 0, 0.0
    _, done = run(Start(), Started(), Stop(25.0))
    while life.state is State.DRAINING:
        wake = next(effect for effect in done if isinstance(effect, Wake))
        at_s = wake.at_s
        life, more = step(life, Tick(), at_s)
        done = list(more)
        reports += done.count(Effect.REPORT)
    assert (at_s, reports) == (25.0, int(25.0 // REPORT_EVERY_S) + 1)


def test_a_drain_without_timeout_waits_for_ever() -> None:
    life, _ = run(Start(), Started(), Stop(0), *((Tick(), 1000.0 * n) for n in range(1, 50)))
    assert life.state is State.DRAINING


def test_a_stop_while_starting_aborts_the_start_and_is_clean() -> None:
    life, _ = run(Start(), Stop(8.0), Closed())
    assert (life.state, life.exit_code) == (State.STOPPED, 0)
    assert Effect.ABORT_START in effects(Start(), Stop(8.0))


def test_a_start_that_ends_after_the_stop_changes_nothing() -> None:
    life, done = step(run(Start(), Stop(8.0))[0], Started(), 0.1)
    assert (life.state, done) == (State.CLOSING, ())


def test_a_failed_start_keeps_its_exit_code() -> None:
    life, _ = run(Start(), StartFailed(111), Closed())
    assert (life.state, life.exit_code) == (State.STOPPED, 111)


def test_cleaning_up_that_hangs_is_severed_and_is_a_timeout() -> None:
    life, done = run(Start(), Started(), Stop(8.0), Idle(), (Tick(), CLOSE_TIMEOUT_S))
    assert (life.state, life.exit_code) == (State.STOPPED, 4)
    assert Effect.SEVER in done


@pytest.mark.parametrize("before", [(), (Start(),), (Start(), Started()), (Start(), Started(), Stop(8.0))])
def test_a_kill_ends_at_once_from_everywhere_with_three(before: tuple[Event, ...]) -> None:
    life, done = run(*before, Kill())
    assert (life.state, life.exit_code) == (State.STOPPED, 3)
    assert done[-2:] == [Effect.SEVER, Effect.FINISH]


def test_a_service_that_never_started_stops_without_a_drain() -> None:
    assert effects(Stop(8.0)) == [Effect.FINISH]


@pytest.mark.parametrize(
    ("signal", "is_stopping", "interrupts", "action"),
    [
        ("TERM", False, 0, Action.STOP),
        ("TERM", True, 0, Action.NOTHING),
        ("INT", False, 0, Action.STOP),
        ("INT", True, 0, Action.NOTHING),
        ("INT", True, 1, Action.KILL),
        ("QUIT", False, 0, Action.KILL),
        ("HUP", False, 0, Action.RELOAD),
        ("HUP", True, 0, Action.NOTHING),
        ("USR1", True, 0, Action.DUMP),
        ("USR2", False, 0, Action.DEBUG),
        ("WINCH", False, 0, Action.NOTHING),
    ],
)
def test_signals_are_decided_by_a_table(signal: str, is_stopping: bool, interrupts: int, action: Action) -> None:
    assert decide(signal, is_stopping, interrupts) is action


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 1], 1), ([0, 4, 1], 4), ([3, 4, 1], 3), ([0, 111], 111), ([100, 1], 100)],
)
def test_the_worst_code_of_the_services_is_that_of_the_process(codes: list[int], code: int) -> None:
    assert lifecycle.worst(codes) == code
