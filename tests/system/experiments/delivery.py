"""Calls and casts whose services and broker are killed: each takes effect once and is answered rightly."""

from __future__ import annotations

import random
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.system.board import Violation, experiment, perform, require
from tests.system.bus import BROKER, Bus, Effects, Load, Operation
from tests.system.site import Site

# How long the broker stands still before it is killed: long enough that messages lie in its sockets, unread.
STOPPED_S = 0.1
# Calls that one service runs at a time, so that what one kill can repeat is bounded.
PREFETCH = 4
CONSUMERS = 3


SHORT: Mapping[str, Any] = {
    "operations": 300, "pace": 150.0, "kills": 3, "broker_kills": 1, "hold_s": 0.005, "extra": 0.1, "limit_s": 60.0,
}  # fmt: skip
# What a service layer may do wrong, and what makes it show.
WRONGS: Mapping[str, Mapping[str, Any]] = {
    "confirms off": {"confirms": False, "settle_s": 3.0},
    "dedupe off": {"broken": "dedupe", "linger_s": 0.1, "extra": 1.0},
    "acknowledged before it is run": {"broken": "early-ack", "hold_s": 0.3, "patience_s": 5.0, "settle_s": 3.0},
}
# How each shows; anything else that fails proves nothing.
SHOWN = {
    "confirms off": "operations are lost",
    "dedupe off": "took effect twice",
    "acknowledged before it is run": "operations are lost",
}


@experiment(
    "R35",
    "kill -9 of services and of the broker under calls and casts",
    short=SHORT,
    full={
        "operations": 10_000, "pace": 250.0, "kills": 20, "broker_kills": 3, "hold_s": 0.003, "extra": 0.01,
        "limit_s": 90.0,
    },
    controls=WRONGS,
)  # fmt: skip
def kill_services_and_broker(
    site: Site,
    operations: int,
    pace: float,
    kills: int,
    broker_kills: int,
    hold_s: float,
    extra: float,
    limit_s: float,
    linger_s: float = 0.003,
    patience_s: float = 30.0,
    settle_s: float = 20.0,
    broken: str = "",
    confirms: bool = True,
) -> str:
    """Every second operation is a call, the others are casts; the killed come back by novad alone."""
    dice = random.Random(35)
    flags = [
        f"--hold_s={hold_s}",
        f"--linger_s={linger_s}",
        f"--rpc_thread_pool_size={PREFETCH}",
        f"--broken={broken}",
    ]
    bus = Bus(site, CONSUMERS, *flags)
    victims = [BROKER] * broker_kills + [dice.choice(bus.names) for _ in range(kills)]
    dice.shuffle(victims)
    load = Load(bus, operations, pace, f"--rpc_response_timeout={patience_s}", f"--confirms={confirms}")
    share = operations // (len(victims) + 1)
    began_s = time.monotonic()
    for number, victim in enumerate(victims):
        # The work goes on while the victim comes back; it waits only for a harness that is late.
        load.permit(share * (number + 2))
        load.await_launched(int(share * (number + dice.uniform(0.5, 1.0))))
        if victim == BROKER:
            bus.await_ready(BROKER)
            bus.signal(BROKER, signal.SIGSTOP)
            select.select([], [], [], STOPPED_S)
        bus.kill(victim)
    load.permit(operations)
    results = load.results(limit_s + patience_s)
    found = bus.settle(operations, settle_s)
    took_s = time.monotonic() - began_s
    _judge(results, found, operations)
    repeated = found.executions.total() - operations
    require(repeated <= extra * operations, f"executions more than needed <= {extra:.0%}: {repeated}")
    require(took_s <= limit_s, f"all ends within {limit_s:g} s: {took_s:.1f} s")
    return (
        f"{operations} operations, {kills} services and {broker_kills} brokers killed, effects {found.counter}, "
        f"0 lost, 0 doubled, 0 wrong replies, {repeated} executions more, {took_s:.1f} s"
    )


def _judge(results: list[Operation], found: Effects, operations: int) -> None:
    lost = found.lost(range(operations))
    require(not lost, f"{len(lost)} of {operations} operations are lost: {lost[:10]}")
    require(not found.doubled, f"{len(found.doubled)} operations took effect twice: {found.doubled[:10]}")
    require(found.counter == operations, f"the counter is {operations}: {found.counter}")
    errors = [operation for operation in results if operation.error is not None]
    require(not errors, f"every call and cast ends well: {len(errors)} did not, {errors[:3]}")
    require(len(results) == operations, f"every operation ends once: {len(results)}")


@experiment(
    "R36",
    "the harness of R35 over a layer that does one thing wrong",
    short={"wrongs": ["dedupe off"]},
    full={"wrongs": list(WRONGS)},
    controls={"nothing is wrong": {"wrongs": ["nothing"]}},
)
def notice_what_is_wrong(site: Site, wrongs: Sequence[str]) -> str:
    """Each is noticed, and as what it is."""
    noticed = []
    for wrong in wrongs:
        try:
            perform(kill_services_and_broker, {**SHORT, **WRONGS.get(wrong, {})})
        except Violation as violation:
            require(SHOWN[wrong] in str(violation), f"{wrong} shows as {SHOWN[wrong]!r}: {violation}")
            noticed.append(f"{wrong}: {violation}")
        else:
            raise Violation(f"{wrong}: nothing was noticed")
    return "; ".join(noticed)
