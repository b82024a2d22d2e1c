"""The state machine, driven without a machine: random histories, and every pair of state and event."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from novad.core import messages as m
from novad.core.machine import Step, step
from novad.core.order import Graph
from novad.core.process import ALIVE, Process, next_deadline_s
from novad.core.spec import Backoff, Dependency, Log, ProcessSpec, Stop
from novad.daemon.verbs import VERBS
from tests.novad.daemon.running import Client, Refused
from tests.system.board import Violation, experiment, require
from tests.system.site import Site

StepFunction = Callable[[Process, m.Event, float, float], Step]


def _spec(name: str, *after: str) -> ProcessSpec:
    wanted = tuple(Dependency(other, "started") for other in after)
    return ProcessSpec(
        name, name, 1, ("true",), "/", Log("/dev/null"), after=wanted, give_up_after=3, restart="always",
        stop=Stop("TERM", 2.0), backoff=Backoff(0.25, 1.0, 1.0),
    )  # fmt: skip


SPECS = (_spec("a"), _spec("b", "a"), _spec("c", "b"))


@dataclass(slots=True)
class Tree:
    """What the fake kernel has of one incarnation."""

    incarnation: int
    leader: bool
    members: int
    stopping: bool = False
    killed: bool = False


class World:
    """Three processes, a fake kernel and a clock; checks its invariants after every event."""

    def __init__(self, dice: random.Random, step_function: StepFunction) -> None:
        self._dice = dice
        self._step = step_function
        self._graph = Graph(SPECS)
        self.processes = {spec.name: Process(spec) for spec in SPECS}
        self.trees: dict[str, Tree] = {}
        self.now_s = 0.0

    def apply(self, name: str, event: m.Event) -> None:
        """One event, its effects on the kernel, and what those say back."""
        queue = [event]
        while queue:
            old = self.processes[name]
            new, effects = self._step(old, queue.pop(0), self.now_s, self._dice.uniform(-1, 1))
            self.processes[name] = new
            for effect in effects:
                answer = self._perform(name, effect)
                if answer is not None:
                    queue.append(answer)
        self._check(name)

    def _perform(self, name: str, effect: m.Effect) -> m.Event | None:
        tree = self.trees.get(name)
        match effect:
            case m.Spawn(incarnation):
                require(tree is None, f"I1: {name} is spawned while {tree} is alive")
                roll = self._dice.random()
                if roll < 0.1:
                    return m.SpawnFailed(incarnation, "no", roll < 0.03, roll > 0.06)
                self.trees[name] = Tree(incarnation, True, self._dice.choice([0, 0, 2]))
                # A few pids for all, so that numbers come again.
                return m.Spawned(incarnation, self._dice.randrange(300, 304))
            case m.Terminate(incarnation, _) | m.KillTree(incarnation):
                require(tree is not None, f"I3: a signal to nobody's {name}")
                assert tree is not None
                require(
                    tree.incarnation == incarnation, f"I3: a signal to {name}'s dead incarnation {incarnation}"
                )
                tree.stopping = True
                tree.killed |= isinstance(effect, m.KillTree)
        return None

    def settle(self) -> None:
        """What the supervisor does after each event: release those that wait for nothing."""
        for name in self.processes:
            if self.processes[name].state == "waiting" and not self._graph.unmet(name, self.processes):
                self.apply(name, m.Released())

    def _check(self, name: str) -> None:
        process, tree = self.processes[name], self.trees.get(name)
        deadline_s = next_deadline_s(process)
        if process.state not in ALIVE:
            require(tree is None, f"I2: {name} is {process.state} and {tree} is alive")
        if process.state in ("stopped", "failed", "done", "waiting"):
            require(deadline_s is None, f"{name} is {process.state} and has the timers {process.timers}")
        if process.state in ("backoff", "stopping"):
            require(deadline_s is not None, f"I10: {name} is {process.state} without a deadline")
        if process.state == "starting":
            require(deadline_s is not None, f"I10: {name} starts without a deadline")
        if process.want == "down":
            require(
                process.state in ("stopping", "stopped", "done", "failed"),
                f"I4: {name} is {process.state}, want down",
            )

    # -- what may happen

    def leader_dies(self, name: str) -> None:
        tree = self.trees.get(name)
        if tree is None or not tree.leader:
            return
        tree.leader = False
        leftovers = tree.members > 0 and not tree.killed
        if not leftovers:
            del self.trees[name]
        code = self._dice.choice([0, 1, 100])
        event = m.Exited(tree.incarnation, *((None, 9) if tree.killed else (code, None)), leftovers)
        self.apply(name, event)

    def members_die(self, name: str) -> None:
        tree = self.trees.get(name)
        if tree is None:
            return
        tree.members = 0
        if not tree.leader:
            del self.trees[name]
            self.apply(name, m.TreeGone(tree.incarnation))

    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        for name in self.processes:
            self.apply(name, m.Tick())

    def obey(self) -> None:
        """A kernel that does what it is told: whoever was killed dies."""
        for name, tree in list(self.trees.items()):
            if tree.killed or (tree.stopping and self._dice.random() < 0.5):
                self.leader_dies(name)
                self.members_die(name)


def _happen(world: World, dice: random.Random) -> None:
    name = dice.choice("abc")
    process = world.processes[name]
    incarnation = max(process.incarnation - dice.choice([0, 0, 0, 1]), 0)
    late = incarnation != process.incarnation
    events: list[m.Event] = [
        m.Start(once=dice.random() < 0.2), m.Stop(dice.choice([None, 0.5]), dice.random() < 0.2), m.Restart(),
        m.Redefine(replace(process.spec, start_s=dice.choice([0.5, 1.0]))), m.Ready(incarnation),
        m.Unhealthy(incarnation, "ill"), m.Pinged(incarnation), m.WatchdogSet(incarnation, dice.choice([0.0, 1.0])),
        m.Extended(incarnation, 1.0), m.Said(incarnation, "x"),
    ]  # fmt: skip
    if late:
        events += [m.Exited(incarnation, 1, None), m.TreeGone(incarnation), m.Spawned(incarnation, 301)]
    roll = dice.random()
    if roll < 0.5:
        world.apply(name, dice.choice(events))
    elif roll < 0.65:
        world.leader_dies(name)
    elif roll < 0.75:
        world.members_die(name)
    else:
        world.time_passes(dice.choice([0.1, 0.5, 1.0, 5.0, 100_000.0]))
    world.settle()


def _end(world: World) -> None:
    """I4: after a stop of all, with a kernel that obeys, everything is down within its bound."""
    for name in world.processes:
        world.apply(name, m.Stop())
    for _ in range(20):
        world.time_passes(0.5)
        world.obey()
    states = {name: process.state for name, process in world.processes.items()}
    rests = all(state in ("stopped", "failed", "done") for state in states.values())
    require(rests and not world.trees, f"I4: all at rest within 10 s of a stop: {states} {world.trees}")


def _deaf_to_incarnations(process: Process, event: m.Event, now_s: float, jitter: float) -> Step:
    if isinstance(event, m.Exited | m.TreeGone):
        event = replace(event, incarnation=process.incarnation)
    return step(process, event, now_s, jitter)


def _careless_of_leftovers(process: Process, event: m.Event, now_s: float, jitter: float) -> Step:
    if isinstance(event, m.Exited):
        event = replace(event, leftovers=False)
    return step(process, event, now_s, jitter)


@experiment(
    "R04",
    "random histories of the state machine on a fake kernel",
    short={"runs": 300, "steps": 50},
    full={"runs": 20_000, "steps": 50},
    controls={
        "late exits are believed": {"step_function": _deaf_to_incarnations},
        "leftovers are forgotten": {"step_function": _careless_of_leftovers},
    },
)
def histories(site: Site, runs: int, steps: int, step_function: StepFunction = step) -> str:
    """I1 to I5 and I10 after each of the events; a failing seed is named, so that it can be run again."""
    for seed in range(runs):
        dice = random.Random(seed)
        world = World(dice, step_function)
        try:
            for _ in range(steps):
                _happen(world, dice)
            _end(world)
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}") from None
    return f"{runs} runs x {steps} steps, 0 violations"


# --- R05 ----------------------------------------------------------------------------------------------------


def _events(process: Process) -> Iterable[m.Event]:
    """Every event, about this child and about the one before."""
    yield from (m.Start(), m.Start(once=True), m.Stop(), m.Stop(kill=True), m.Stop(0.1), m.Restart(), m.Released(),
                m.Tick(), m.Redefine(process.spec))  # fmt: skip
    for number in (process.incarnation, process.incarnation - 1):
        yield from (
            m.Spawned(number, 300), m.SpawnFailed(number, "no", True), m.SpawnFailed(number, "no", False),
            m.SpawnFailed(number, "no", False, True), m.Ready(number), m.Exited(number, 0, None),
            m.Exited(number, 1, None), m.Exited(number, 100, None), m.Exited(number, None, 9, True),
            m.TreeGone(number), m.Unhealthy(number, "ill"), m.Pinged(number), m.WatchdogSet(number, 1.0),
            m.Extended(number, 1.0), m.Said(number, "x"),
        )  # fmt: skip


Key = tuple[object, ...]


def _key(process: Process) -> Key:
    """What of a process decides: times relative to the nearest timer, without numbers that only grow."""
    base_s = next_deadline_s(process) or 0.0
    timers = tuple(sorted((name, round(at - base_s, 1)) for name, at in process.timers))
    ended = process.exit
    how = ended and (ended.code, ended.signal, bool(ended.error), ended.asked, ended.was_ready)
    return (
        process.want, process.state, process.purpose, process.pid, process.failures, bool(process.fault), timers,
        how, process.spec.watchdog_s, process.next_spec is not None,
    )  # fmt: skip


def _explore(spec: ProcessSpec, limit: int, step_function: StepFunction) -> dict[Key, set[Key]]:
    """All keys that can be reached, with their successors. Raises `Violation` where it does not close."""
    found: dict[Key, set[Key]] = {}
    frontier = [Process(spec, incarnation=1)]
    while frontier:
        process = frontier.pop()
        key = _key(process)
        if key in found:
            continue
        require(len(found) < limit, f"the machine closes within {limit} states")
        found[key] = set()
        due_s = next_deadline_s(process) or 0.0
        for event in _events(process):
            new, effects = step_function(process, event, due_s, 0.0)
            require(isinstance(new, Process) and isinstance(effects, tuple), f"{event} is defined in {key}")
            if isinstance(event, m.Tick):
                again, more = step_function(new, event, due_s, 0.0)
                require(
                    again == new and not more, f"no livelock: a second tick at one time does nothing in {key}"
                )
            found[key].add(_key(new))
            frontier.append(new)
    return found


def _reaching(found: dict[Key, set[Key]], state: str) -> set[Key]:
    """All from which `state` can be reached."""
    sources: dict[Key, list[Key]] = {}
    for key, successors in found.items():
        for successor in successors:
            sources.setdefault(successor, []).append(key)
    reached = {key for key in found if key[1] == state}
    frontier = list(reached)
    while frontier:
        for source in sources.get(frontier.pop(), ()):
            if source not in reached:
                reached.add(source)
                frontier.append(source)
    return reached


def _restless(process: Process, event: m.Event, now_s: float, jitter: float) -> Step:
    """A machine that arms a timer in the past: it would spin."""
    new, effects = step(process, event, now_s, jitter)
    return (replace(new, timers=(*new.timers, ("dump", now_s))) if new.state == "stopping" else new), effects


def _stuck(process: Process, event: m.Event, now_s: float, jitter: float) -> Step:
    """A machine that cannot leave `failed`."""
    return (process, ()) if process.state == "failed" else step(process, event, now_s, jitter)


@experiment(
    "R05",
    "every state and every event, and every verb over the socket",
    short={"give_up_after": 2, "kinds": 1},
    full={"give_up_after": 5, "kinds": 3},
    controls={
        "a timer in the past": {"step_function": _restless},
        "a state without a way out": {"step_function": _stuck},
    },
)
def exhaust(site: Site, give_up_after: int, kinds: int, step_function: StepFunction = step) -> str:
    """Breadth first until closed; each state leads to `stopped` and to `failed`; each verb gets one answer."""
    counts = []
    changes: list[dict[str, Any]] = [{}, {"oneshot": True, "restart": "on-failure"}, {"restart": "no"}]
    for change in changes[:kinds]:
        spec = replace(SPECS[0], give_up_after=give_up_after, **change)
        found = _explore(spec, 200_000, step_function)
        for state in ("stopped", "failed"):
            stuck = found.keys() - _reaching(found, state)
            require(not stuck, f"every state leads to {state}: not {next(iter(stuck), None)}")
        counts.append(len(found))
    verbs = _ask_everything(site)
    return f"{sum(counts)} states x {len(list(_events(Process(SPECS[0]))))} events closed, {verbs} verbs answered"


def _ask_everything(site: Site) -> int:
    """Verbs through the real socket, without arguments and with wrong ones: one answer each.

    Those that bind their connection or replace the daemon have tests of their own.
    """
    client = site.up(site.sleeper("a"))
    apart = ("lease", "down", "upgrade", "fg", "ended", "spawned", "watch")
    for verb in [*(verb for verb in VERBS if verb not in apart), "nonsense"]:
        for args in ({}, {"names": 5}, {"names": ["a"], "cluster": [], "for": 1, "signal": []}):
            _ask_once(client, verb, args)
    require(client.ask("down")["survivors"] == [], "down answers")
    return len(VERBS) - len(apart) + 1


def _ask_once(client: Client, verb: str, args: dict[str, object]) -> None:
    number = client.send(verb, **args)
    try:
        client.answer(number)
    except Refused as refused:
        require(bool(refused.args[1]), f"{verb} {args}: a refusal has a reason")
