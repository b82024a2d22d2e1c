"""A broker that is away, stands still, resets, or is reached by half: calls end in time, and work goes on."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections.abc import Callable, Mapping

from tests.services.rpc.running import Proxy
from tests.system.board import experiment, require
from tests.system.bus import BROKER, Bus, Effects, Load, Operation
from tests.system.site import Site

PACE = 50.0
CONSUMERS = 3
# Each process has one link, that of a service one for what it calls as well; none of ours calls.
LINKS = CONSUMERS + 1
# A caller's own time to notice that a deadline has passed, on a machine that does other things.
GRACE_S = 1.0

Change = Callable[[Bus, Proxy], None]
# Name -> what begins it, what ends it.
FAULTS: Mapping[str, tuple[Change, Change]] = {
    "down": (lambda bus, proxy: proxy.down(), lambda bus, proxy: proxy.down(False)),
    "stopped": (
        lambda bus, proxy: bus.signal(BROKER, signal.SIGSTOP),
        lambda bus, proxy: bus.signal(BROKER, signal.SIGCONT),
    ),
    "reset": (lambda bus, proxy: proxy.reset(), lambda bus, proxy: None),
    "black hole": (lambda bus, proxy: proxy.freeze(), lambda bus, proxy: proxy.freeze(False)),
    "deaf broker": (lambda bus, proxy: proxy.deafen(True), lambda bus, proxy: proxy.deafen()),
    "mute broker": (lambda bus, proxy: proxy.deafen(False), lambda bus, proxy: proxy.deafen()),
    "byte a second": (lambda bus, proxy: proxy.trickle(1.0), lambda bus, proxy: proxy.trickle(0.0)),
    "mid-frame": (lambda bus, proxy: proxy.cut_in_mid_frame(50), lambda bus, proxy: None),
}


@experiment(
    "R37",
    "a broker that is away, stands still, resets or is reached by half",
    short={
        "faults": [["down", 0.5], ["stopped", 0.5], ["reset", 0.0], ["mid-frame", 0.0]],
        "between_s": 0.7, "timeout_s": 5.0, "recovery_s": 5.0,
    },
    full={
        "faults": [
            ["down", 5.0], ["down", 20.0], ["stopped", 20.0], ["reset", 0.0], ["black hole", 5.0],
            ["deaf broker", 5.0], ["mute broker", 5.0], ["byte a second", 5.0], ["mid-frame", 0.0],
        ],
        "between_s": 4.0, "timeout_s": 5.0, "recovery_s": 2.0,
    },
    controls={
        "a broker that stays away": {"faults": [["down", 0.5]], "timeout_s": 2.0, "comes_back": False},
        "a deadline that nobody keeps": {"faults": [["down", 0.5]], "promised_s": 0.001 - GRACE_S},
        "an answer that is not so": {"faults": [], "liar": True},
    },
)  # fmt: skip
def break_the_way_to_the_broker(
    site: Site,
    faults: list[tuple[str, float]],
    between_s: float,
    timeout_s: float,
    recovery_s: float,
    promised_s: float | None = None,
    comes_back: bool = True,
    liar: bool = False,
) -> str:
    """50 calls and casts a second through a proxy, one fault after the other."""
    bus = Bus(site, CONSUMERS, "--rpc_heartbeat=1", f"--broken={'liar' if liar else ''}", is_proxied=True)
    assert bus.proxy is not None
    seconds = sum(length for _, length in faults) + between_s * (len(faults) + 1)
    operations = int(PACE * seconds)
    with contextlib.closing(bus.proxy) as proxy:
        load = Load(bus, operations, PACE, "--rpc_heartbeat=1", f"--rpc_response_timeout={timeout_s}")
        load.permit(operations)
        load.await_launched(int(PACE * between_s))
        before, began_s = proxy.accepted, time.monotonic()
        spans = []
        for name, length in faults:
            begin, end = FAULTS[name]
            from_s = time.monotonic()
            begin(bus, proxy)
            _pass(length)
            if comes_back:
                end(bus, proxy)
            spans.append((name, from_s, time.monotonic()))
            _pass(between_s)
        results = load.results(timeout_s + 30)
        pace = (proxy.accepted - before) / LINKS / (time.monotonic() - began_s)
        found = bus.settle(operations, 1.0)
    _judge(results, found, timeout_s if promised_s is None else promised_s)
    late_s = _check_recovery(results, spans, recovery_s)
    require(pace <= 2.0, f"a process connects twice a second at most: {pace:.1f}")
    failed = sum(operation.error is not None for operation in results)
    return (
        f"{operations} operations, {len(faults)} faults: all ended in time, {failed} with a timeout; working again "
        f"after {late_s:.2f} s at most; 0 doubled, {pace:.2f} connects/s a process"
    )


def _pass(seconds: float) -> None:
    """The time that a fault lasts; there is nothing to wait for but the clock."""
    select.select([], [], [], seconds)


def _judge(results: list[Operation], found: Effects, promised_s: float) -> None:
    slow = [each for each in results if each.ended_s - each.began_s > promised_s + GRACE_S]
    require(not slow, f"all end within {promised_s} s: {len(slow)} did not, {slow[:3]}")
    odd = [each for each in results if each.error is not None and not each.error.startswith("RPCTimeout")]
    require(not odd, f"what fails fails with a timeout: {odd[:3]}")
    require(not found.doubled, f"nothing takes effect twice: {found.doubled[:10]}")
    lost = [each.n for each in results if each.error is None and each.n not in found.per_operation]
    require(not lost, f"what was accepted takes effect: {lost[:10]} did not")


def _check_recovery(results: list[Operation], spans: list[tuple[str, float, float]], recovery_s: float) -> float:
    """After each fault all goes well again. The longest time in s from an end to the first call answered."""
    late_s = 0.0
    ends = [from_s for _, from_s, _ in spans[1:]] + [float("inf")]
    for (name, _, until_s), next_s in zip(spans, ends, strict=True):
        after = [each for each in results if until_s + recovery_s < each.began_s < next_s]
        failed = [each for each in after if each.error is not None and each.ended_s < next_s]
        require(not failed, f"working again {recovery_s:g} s after {name}: {failed[:3]}")
        answered = [each.ended_s - until_s for each in results if each.n % 2 == 0 and each.error is None]
        first_s = min((end_s for end_s in answered if end_s > 0), default=float("inf"))
        require(first_s <= recovery_s, f"a call is answered {recovery_s:g} s after {name}: {first_s:.2f} s")
        late_s = max(late_s, first_s)
    return late_s
