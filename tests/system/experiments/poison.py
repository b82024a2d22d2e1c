"""Messages that harm whoever takes them: they are tried a few times, put away with a reason, and stop nobody."""

from __future__ import annotations

import time
from collections import Counter

from tests.system.board import experiment, require, until
from tests.system.bus import Bus, Load
from tests.system.poisons import POISONS, is_poison
from tests.system.site import Site

MAX_TRIES = 3
CONSUMERS = 3
# Numbers of the operations that block, apart from all others.
BLOCKING = 1_000_000
# The watchdog looks once a second, so a stack is there after this limit and a second; the rest of the two seconds that
# are promised is for a busy machine.
HUB_LIMIT_S = 0.5


@experiment(
    "R38",
    "calls that block the hub, and messages of five kinds that cannot be run",
    short={"operations": 100, "every": 20, "pace": 100.0, "block_s": 3.0, "heartbeat_s": 1, "stacks_s": 10.0},
    full={"operations": 5050, "every": 101, "pace": 100.0, "block_s": 12.0, "heartbeat_s": 2, "stacks_s": 2.0},
    controls={
        "dead letters thrown away": {"broken": "graveless", "settle_s": 3.0},
        "an effect without its key": {"broken": "dedupe", "operations": 0, "block_s": 5.0, "settle_s": 3.0},
    },
)
def harm_whoever_takes_it(
    site: Site,
    operations: int,
    every: int,
    pace: float,
    block_s: float,
    heartbeat_s: int,
    stacks_s: float,
    settle_s: float = 30.0,
    broken: str = "",
) -> str:
    """First poison among good calls and casts; then two calls that block, one of them the whole interpreter."""
    bus = Bus(
        site, CONSUMERS, f"--rpc_heartbeat={heartbeat_s}", f"--hub_limit={HUB_LIMIT_S}", f"--broken={broken}"
    )
    buried = _poison(bus, operations, every, pace, settle_s) if operations else 0
    runs, stacks_s = _block(bus, block_s, stacks_s)
    return (
        f"{operations - buried} good operations took effect once, {buried} of {len(POISONS)} kinds buried with a "
        f"reason after {MAX_TRIES} tries at most; blocked for {block_s:g} s: stacks within "
        f"{stacks_s:.1f} s, effect once in {runs} runs"
    )


def _poison(bus: Bus, operations: int, every: int, pace: float, settle_s: float) -> int:
    load = Load(bus, operations, pace, f"--poison_every={every}")
    load.permit(operations)
    results = load.results(operations / pace + 60)
    bad = {n for n in range(operations) if is_poison(n, every)}
    buried = bus.await_dead_letters(len(bad), settle_s)
    found = bus.settle(operations - len(bad), settle_s)
    reasons = Counter(str(letter["reason"]).partition(":")[0] for letter in buried)
    require(len(buried) == len(bad), f"{len(bad)} are buried: {len(buried)}, {reasons}")
    require(all(letter["reason"] for letter in buried), f"each with a reason: {reasons}")
    lost = set(range(operations)) - bad - found.per_operation.keys()
    require(not lost, f"the good ones take effect: {len(lost)} did not, {sorted(lost)[:10]}")
    require(not found.doubled, f"they do so once: {found.doubled[:10]}")
    failed = [each for each in results if each.error is not None]
    require(not failed, f"they are answered: {failed[:3]}")
    often = {line: count for line, count in found.executions.items() if line[:3] == "die" and count > MAX_TRIES}
    require(not often, f"{MAX_TRIES} tries at most: {often}")
    return len(buried)


def _block(bus: Bus, block_s: float, stacks_s: float) -> tuple[int, float]:
    """How often the two calls ran, together; how long after both had begun the stacks of both were written."""
    for name in bus.names:
        bus.await_ready(name)
    load = Load(bus, 2, 100.0, f"--block_s={block_s}", f"--first={BLOCKING}")
    load.permit(2)
    until(lambda: len(_runs(bus)) == 2, block_s + 30, "two calls block the hub")
    began_s = time.monotonic()
    for sign in ("the hub stands still", "Timeout ("):
        left_s = began_s + stacks_s - time.monotonic()
        until(lambda sign=sign: sign in bus.logs(), left_s, f"stacks are written ({sign!r})")
    took_s = time.monotonic() - began_s
    errors = [each for each in load.results(block_s * 2 * MAX_TRIES + 60) if each.error is not None]
    require(not errors, f"they are answered: {errors}")
    found, runs = bus.effects(), _runs(bus)
    for n in (BLOCKING, BLOCKING + 1):
        require(found.per_operation[n] == 1, f"effect once: {found.per_operation[n]}")
    require(max(runs.values()) <= MAX_TRIES, f"{MAX_TRIES} tries at most: {runs}")
    return runs.total(), took_s


def _runs(bus: Bus) -> Counter[str]:
    """How often each call that blocks has begun."""
    return Counter({line: count for line, count in bus.executions().items() if line.startswith("block")})
