"""The state machine: histories, exhaustive short sequences, and invariants over random ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.core.machine import SWEEP_S, step
from novad.core.messages import (
    DumpStacks,
    Effect,
    Event,
    Exited,
    Extended,
    KillTree,
    NameSurvivors,
    Pinged,
    Ready,
    Redefine,
    Released,
    Restart,
    Said,
    Seat,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Terminate,
    Tick,
    TreeGone,
    Unhealthy,
    Unwatch,
    Vacate,
    Watch,
    WatchdogSet,
    Withdraw,
)  # fmt: skip
from novad.core.process import ALIVE, Process, next_deadline_s, postpone, timer_s
from novad.core.spec import Backoff, Health, Log, Probe, ProcessSpec
from novad.core.spec import Stop as StopSpec
from novad.core.stopping import KILL_AGAIN_S, NAME_AFTER_S

SPEC = ProcessSpec("api", "api", 1, ("api",), "/", Log("/api.log"), stop=StopSpec("TERM", 10.0))
PROBED = replace(SPEC, ready=Probe(notify=True))


class Play:
    """A process and the effects so far; time is a number that the test moves."""

    def __init__(self, spec: ProcessSpec = SPEC) -> None:
        self.process = Process(spec)
        self.now_s = 100.0
        self.effects: list[Effect] = []

    def __call__(self, *events: Event) -> Play:
        for event in events:
            self.process, effects = step(self.process, event, self.now_s)
            self.effects += effects
        return self

    def after(self, seconds: float) -> Play:
        self.now_s += seconds
        return self(Tick())

    def run(self) -> Play:
        return self(Start(), Released(), Spawned(self.process.incarnation + 1, 10))

    @property
    def state(self) -> str:
        return self.process.state

    @property
    def inc(self) -> int:
        return self.process.incarnation

    def die(self, code: int | None = 1, signal: int | None = None, leftovers: bool = False) -> Play:
        return self(Exited(self.inc, code if signal is None else None, signal, leftovers))


def test_a_process_without_a_probe_is_ready_once_it_has_lived_its_start_time() -> None:
    play = Play().run()
    assert play.state == "starting"
    assert play.after(0.9).state == "starting"
    assert play.after(0.1).state == "ready"
    assert play.effects == [Spawn(1), Watch(1)]


def test_a_probed_process_is_ready_when_the_probe_says_so_and_not_by_age() -> None:
    play = Play(PROBED).run().after(5)
    assert play.state == "starting"
    assert play(Ready(1)).state == "ready"


def test_a_process_that_never_gets_ready_is_stopped_and_counts_as_failed() -> None:
    play = Play(PROBED).run().after(30)
    assert play.state == "stopping"
    assert play.effects[-1] == Terminate(1, "TERM")
    play.die(code=0)
    assert play.state == "waiting"
    assert play.process.failures == 1
    assert play.process.cause == "not ready within 30 s"


def test_the_first_restart_is_at_once_and_the_later_ones_back_off() -> None:
    play = Play().run()
    delays = []
    while True:
        play.die()
        if play.state == "failed":
            break
        if play.state == "backoff":
            due = next_deadline_s(play.process)
            assert due is not None
            delays.append(due - play.now_s)
            play.after(delays[-1])
        else:
            delays.append(0.0)
        play(Released(), Spawned(play.inc + 1, 11))
    assert delays == [0.0, 0.25, 0.5, 1.0]
    assert play.process.failures == 5
    assert "5 failures in a row" in play.process.cause


def test_failures_are_forgotten_after_the_reset_time_of_ready() -> None:
    play = Play().run().die()(Released(), Spawned(2, 11)).after(1)
    assert (play.state, play.process.failures) == ("ready", 1)
    assert play.after(9.9).process.failures == 1
    assert play.after(0.2).process.failures == 0


def test_a_reset_time_of_zero_forgets_as_soon_as_the_process_is_ready() -> None:
    play = (
        Play(replace(SPEC, backoff=Backoff(reset_after_s=0.0))).run().die()(Released(), Spawned(2, 11)).after(1)
    )
    assert (play.state, play.process.failures) == ("ready", 0)


@pytest.mark.parametrize(
    ("restart", "oneshot", "code", "state"),
    [
        ("on-failure", False, 0, "done"),
        ("on-failure", False, 1, "waiting"),
        ("on-failure", False, 100, "failed"),
        ("on-failure", False, 111, "waiting"),
        ("always", False, 0, "waiting"),
        ("no", False, 1, "failed"),
        ("no", True, 0, "done"),
        ("no", True, 1, "failed"),
        ("always", True, 0, "done"),
    ],
)
def test_what_an_exit_leads_to(restart: str, oneshot: bool, code: int, state: str) -> None:
    play = Play(replace(SPEC, restart=restart, oneshot=oneshot)).run().die(code=code)
    assert play.state == state


def test_who_is_always_restarted_may_end_well_as_often_as_it_likes() -> None:
    play = Play(replace(SPEC, restart="always")).run()
    for run in range(1, 10):
        play.after(1.5)
        assert play.state == "ready"
        play.die(code=0)
        assert (play.state, play.process.failures, play.process.restarts) == ("waiting", 0, run)
        play(Released(), Spawned(run + 1, 10 + run))


def test_who_ends_well_before_it_is_ready_has_not_done_what_it_should() -> None:
    play = Play(replace(SPEC, restart="always", backoff=Backoff(0.0, 0.0))).run()
    for run in range(1, 5):
        play.die(code=0)(Released(), Spawned(run + 1, 10 + run))
    assert play.die(code=0).process.cause == "exit 0; 5 failures in a row"


def test_a_oneshot_is_not_ready_by_age() -> None:
    assert Play(replace(SPEC, oneshot=True)).run().after(60).state == "starting"


def test_stop_sends_the_signal_then_dumps_stacks_then_kills_the_tree_and_names_survivors() -> None:
    play = Play().run().after(1)
    play(Stop())
    assert play.effects[-2:] == [Unwatch(1), Terminate(1, "TERM")]
    assert play.after(7.9).effects[-1] == Terminate(1, "TERM")
    assert play.after(0.1).effects[-1] == DumpStacks(1)
    assert play.after(2.0).effects[-1] == KillTree(1)
    assert play.after(NAME_AFTER_S).effects[-2:] == [KillTree(1), NameSurvivors(1)]
    assert play.after(KILL_AGAIN_S).effects[-2:] == [KillTree(1), NameSurvivors(1)]
    assert play.state == "stopping"
    assert play.die(signal=9).state == "stopped"


def test_a_stop_is_not_over_while_the_tree_lives() -> None:
    play = Play().run()(Stop()).die(code=0, leftovers=True)
    assert play.state == "stopping"
    assert play.after(10).effects[-1] == KillTree(1)
    assert play(TreeGone(1)).state == "stopped"


def test_what_outlives_its_leader_in_a_stop_is_told_to_go() -> None:
    play = Play().run()(Stop()).die(code=0, leftovers=True)
    assert play.effects[-2:] == [Terminate(1, "TERM"), Terminate(1, "TERM")]


def test_what_a_crashed_leader_leaves_is_ended_before_its_successor_starts() -> None:
    play = Play().run().after(1).die(signal=9, leftovers=True)
    assert play.state == "stopping"
    assert play.effects[-2:] == [Unwatch(1), Terminate(1, "TERM")]
    assert play.after(SWEEP_S).effects[-1] == KillTree(1)
    play(TreeGone(1))
    assert (play.state, play.process.failures) == ("waiting", 1)


def test_down_while_spawning_signals_as_soon_as_the_pid_is_known() -> None:
    play = Play()(Start(), Released(), Stop())
    assert (play.state, play.effects) == ("stopping", [Spawn(1)])
    assert play(Spawned(1, 10)).effects[-1] == Terminate(1, "TERM")


def test_kill_while_spawning_kills_as_soon_as_the_pid_is_known() -> None:
    assert Play()(Start(), Released(), Stop(kill=True), Spawned(1, 10)).effects[-1] == KillTree(1)


def test_start_during_a_stop_starts_again_when_the_old_tree_is_gone() -> None:
    play = Play().run()(Stop(), Start())
    assert play.state == "stopping"
    play.die(code=0)
    assert (play.state, play.process.failures) == ("waiting", 0)


def test_stop_during_a_restart_wins() -> None:
    assert Play().run()(Restart(), Stop()).die(code=0).state == "stopped"


def test_two_restarts_at_once_are_one() -> None:
    play = Play().run()(Restart(), Restart())
    assert play.effects.count(Terminate(1, "TERM")) == 1
    assert play.die(code=0)(Released()).effects.count(Spawn(2)) == 1


@pytest.mark.parametrize("history", [[Start()], [Start(), Released(), SpawnFailed(1, "x", True)]])
def test_stop_takes_effect_at_once_where_no_child_is_alive(history: list[Event]) -> None:
    assert Play()(*history, Stop()).state == "stopped"


def test_stop_in_backoff_takes_effect_at_once() -> None:
    play = Play().run().die()(Released(), Spawned(2, 11)).die()
    assert play.state == "backoff"
    play(Stop())
    assert (play.state, next_deadline_s(play.process)) == ("stopped", None)


def test_a_start_that_cannot_heal_does_not_loop_and_one_that_can_backs_off() -> None:
    assert Play()(Start(), Released(), SpawnFailed(1, "no such file", True)).state == "failed"
    assert Play()(Start(), Released(), SpawnFailed(1, "text file busy", False)).state == "waiting"


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, restart="no"), replace(SPEC, oneshot=True)])
def test_a_start_for_which_the_machine_has_no_room_is_tried_every_second_and_never_counts(
    spec: ProcessSpec,
) -> None:
    play = Play(spec)(Start())
    for incarnation in range(1, 31):
        play(Released(), SpawnFailed(incarnation, "resource temporarily unavailable", False, shortage=True))
        assert (play.state, play.process.failures, play.process.restarts) == ("backoff", 0, 0)
        assert play.after(1.1).state == "waiting"
    assert play(Released(), Spawned(31, 10)).state == "starting"


def test_what_is_postponed_is_due_later_by_as_much() -> None:
    play = Play(replace(SPEC, watchdog_s=3.0)).run().after(1.0)
    play.process = postpone(play.process, 30.0)
    assert play.after(32.9).state == "ready"
    assert play.after(0.2).state == "stopping"


def test_a_stop_takes_back_a_start_for_which_there_is_no_room() -> None:
    failed = SpawnFailed(1, "x", False, shortage=True)
    assert Play()(Start(), Released(), failed, Stop()).state == "stopped"
    assert Play()(Start(), Released(), Stop(), failed).state == "stopped"


def test_a_failed_process_is_armed_again_by_start_and_restart() -> None:
    for event in (Start(), Restart()):
        play = Play()(Start(), Released(), SpawnFailed(1, "no such file", True), event)
        assert (play.state, play.process.failures) == ("waiting", 0)


def test_once_is_not_restarted() -> None:
    assert Play()(Start(once=True), Released(), Spawned(1, 10)).die().state == "failed"
    assert Play()(Start(once=True), Released(), Spawned(1, 10)).die(code=0).state == "done"


def test_a_new_definition_waits_for_the_end_of_the_child_that_runs_by_the_old_one() -> None:
    other = replace(SPEC, argv=("api", "--new"))
    play = Play().run()(Redefine(other))
    assert play.process.spec is SPEC
    play(Restart()).die(code=0)
    assert play.process.spec is other
    assert Play()(Redefine(other)).process.spec is other


def test_the_watchdog_restarts_a_process_that_no_longer_pings() -> None:
    play = Play(replace(PROBED, watchdog_s=2.0)).run()(Ready(1))
    play.after(1.5)(Pinged(1)).after(1.5)
    assert play.state == "ready"
    assert play.after(0.5).state == "stopping"
    assert play.process.fault == "no watchdog ping for 2 s"


def test_a_service_may_ask_for_more_time_but_never_for_less() -> None:
    play = Play(PROBED).run().after(29)(Extended(1, 20.0))
    assert play.after(19).state == "starting"
    assert play(Extended(1, 0.1)).after(0.5).state == "starting"
    assert play.after(0.5).state == "stopping"


def test_news_of_a_dead_incarnation_change_nothing() -> None:
    play = Play().run().die()(Released(), Spawned(2, 11))
    before = play.process
    for event in (Exited(1, 0, None), Ready(1), TreeGone(1), Spawned(1, 10), Unhealthy(1, "x"), Said(1, "x")):
        assert play(event).process == before


def test_a_second_stop_may_shorten_the_first_but_not_lengthen_it() -> None:
    play = Play().run()(Stop(), Stop(timeout_s=60))
    assert timer_s(play.process, "kill") == play.now_s + 10
    play(Stop(timeout_s=1))
    assert timer_s(play.process, "kill") == play.now_s + 1
    assert play(Stop(kill=True)).effects[-1] == KillTree(1)


SEATED = (Seat("pts/4"), Released(), Spawned(1, 10))


def test_a_child_on_a_terminal_takes_the_place_of_the_supervised_one_and_gives_it_back() -> None:
    play = Play().run()(Seat("pts/4"))
    assert (play.state, play.effects[-1]) == ("stopping", Terminate(1, "TERM"))
    play.die(signal=15)(Released(), Spawned(2, 20)).after(1)
    assert play.process.seat is not None
    assert (play.state, play.process.want, play.process.seat.terminal) == ("ready", "up", "pts/4")
    play.die(code=1)
    assert (play.state, play.process.seat, play.process.failures) == ("waiting", None, 0)
    assert play.process.exit is not None
    assert play.process.exit.asked, "its end is no crash"


def test_a_child_in_a_debugger_is_never_late_never_unhealthy_and_feeds_no_watchdog() -> None:
    play = Play(replace(PROBED, watchdog_s=1.0, health=Health(Probe(tcp=1))))(*SEATED)
    assert play.after(1000).state == "starting"
    assert play(Ready(1)).after(1000).state == "ready"
    assert play.effects == [Spawn(1), Watch(1)]


def test_a_process_that_was_down_goes_down_again_after_its_time_on_a_terminal() -> None:
    play = Play()(*SEATED)
    assert play.process.want == "up"
    play.die(code=0)
    assert (play.state, play.process.want) == ("stopped", "down")


def test_a_lost_terminal_ends_the_child_and_supervision_resumes() -> None:
    play = Play().run()(Seat("pts/4")).die(signal=15)(Released(), Spawned(2, 20), Vacate("its terminal is gone"))
    assert (play.state, play.effects[-1]) == ("stopping", Terminate(2, "TERM"))
    assert play.die(signal=15).state == "waiting"
    assert play.process.restarts == 1, "taking it to the terminal was a restart, coming back is none"


def test_a_terminal_that_is_lost_before_its_turn_costs_a_restart_only() -> None:
    play = Play().run()(Seat("pts/4"), Vacate("its terminal is gone")).die(signal=15)(Released())
    assert (play.state, play.process.seat) == ("starting", None)


def test_what_was_offered_to_a_terminal_and_not_taken_is_withdrawn() -> None:
    play = Play().run()(Seat("pts/4")).die(signal=15)(Released(), Vacate("its terminal is gone"))
    assert play.effects[-1] == Withdraw(2)
    assert (play.state, play.process.seat) == ("waiting", None)


def test_a_stop_ends_the_child_on_a_terminal_and_it_stays_down() -> None:
    assert (
        Play().run()(Seat("pts/4")).die(signal=15)(Released(), Spawned(2, 20), Stop()).die(signal=15).state
        == "stopped"
    )


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (1, "failed")])
def test_a_one_shot_on_a_terminal_is_not_run_again(code: int, state: str) -> None:
    play = Play(replace(SPEC, oneshot=True))(Start(), *SEATED)
    assert play.die(code=code).state == state


SPECS = [SPEC, PROBED, replace(SPEC, oneshot=True, restart="no"), replace(SPEC, restart="always", watchdog_s=1.0)]


def alphabet(incarnation: int) -> list[Event]:
    events: list[Event] = [
        Start(), Start(once=True), Stop(), Stop(kill=True), Restart(), Released(), Tick(), Redefine(PROBED),
        Seat("pts/4"), Vacate("its terminal is gone"),
    ]  # fmt: skip
    for inc in {incarnation, max(incarnation - 1, 0)}:
        events += [
            Spawned(inc, 10 + inc), SpawnFailed(inc, "x", True), SpawnFailed(inc, "x", False), Ready(inc),
            SpawnFailed(inc, "x", False, True),
            Exited(inc, 0, None), Exited(inc, 1, None), Exited(inc, None, 9, True), TreeGone(inc), Pinged(inc),
            WatchdogSet(inc, 3.0), Extended(inc, 1.0), Said(inc, "x"), Unhealthy(inc, "x"),
        ]  # fmt: skip
    return events


def check(before: Process, event: Event, after: Process, effects: tuple[Effect, ...]) -> None:
    spawns = [effect for effect in effects if isinstance(effect, Spawn)]
    assert len(spawns) <= 1
    if spawns:
        assert before.state == "waiting", "a second child beside a live one"
        assert spawns[0].incarnation == before.incarnation + 1 == after.incarnation
    else:
        assert after.incarnation == before.incarnation
    assert all(effect.incarnation == after.incarnation for effect in effects)
    if after.pid is not None:
        assert after.state in ALIVE
    if after.state in ("waiting", "stopped", "failed", "done"):
        assert after.timers == (), "a resting process has no timer"
    if after.state == "backoff":
        assert timer_s(after, "retry") is not None
    if after.state == "stopping" and after.pid is not None:
        assert next_deadline_s(after) is not None, "a stop without a limit"
    if isinstance(event, Stop):
        assert after.want == "down"
    if after.state == "stopped":
        assert after.want == "down"


@pytest.mark.parametrize("spec", SPECS)
def test_every_event_in_every_reachable_state_keeps_the_invariants(spec: ProcessSpec) -> None:
    seen: set[int] = set()
    states: set[str] = set()
    level = [Process(spec)]
    now_s = 100.0
    for _depth, pause_s in zip(range(4), itertools.cycle([0.0, 1.0, 11.0]), strict=False):
        now_s += pause_s
        following = []
        for process in level:
            states.add(process.state)
            for event in alphabet(process.incarnation):
                after, effects = step(process, event, now_s)
                check(process, event, after, effects)
                if (key := hash(repr(after))) not in seen:
                    seen.add(key)
                    following.append(after)
        level = following
    assert states | {process.state for process in level} >= {
        "waiting", "starting", "stopping", "stopped", "failed", "done",
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SPECS), st.lists(st.tuples(st.integers(0, 99), st.floats(0, 12)), max_size=60))
def test_random_histories_keep_the_invariants_and_a_stop_always_ends(
    spec: ProcessSpec, history: list[tuple[int, float]]
) -> None:
    process, now_s = Process(spec), 100.0
    for choice, pause_s in history:
        now_s += pause_s
        events = alphabet(process.incarnation)
        event = events[choice % len(events)]
        after, effects = step(process, event, now_s)
        check(process, event, after, effects)
        process = after
    process, _ = step(process, Stop(), now_s)
    if process.state == "stopping" and process.pid is None:
        process, _ = step(process, Spawned(process.incarnation, 9), now_s)
    if process.state == "stopping":
        due = next_deadline_s(process)
        assert due is not None
        assert due <= now_s + 60, "the limit of a stop is near"
        process, _ = step(process, Exited(process.incarnation, None, 9), due)
    assert process.state in ("stopped", "done")
    assert step(process, Start(), now_s)[0].state == "waiting"
