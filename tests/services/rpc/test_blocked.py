"""A broker that has no room for more messages: connection.blocked, for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nova import green, rpc
from nova.broker import admin
from nova.flags import FLAGS

from tests.services.broker.conftest import BrokerProcess
from tests.services.rpc.running import PATIENCE_S, Bus, Latch

TEXT = "x" * 50_000
COUNT = 60  # three times what the broker takes


@pytest.fixture
def small_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """It holds its publishers above one MiB of messages."""
    broker = BrokerProcess(tmp_path / "small", "--memory_limit_mib=1")
    yield broker
    broker.terminate()


@pytest.fixture
def small_bus(small_broker: BrokerProcess, tmp_path: Path) -> Iterator[Bus]:
    with FLAGS.override(broker=small_broker.url, state_path=str(tmp_path)):
        bus = Bus("nova-broker", tmp_path)
        try:
            yield bus
        finally:
            bus.close()


def blocked(broker: BrokerProcess) -> Any:
    return admin.ask(broker.folder, "overview")[0]["blocked"]


def wait_until(holds: Any, patience_s: float = 2 * PATIENCE_S) -> None:
    until_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until_s, "did not happen in time"
        green.sleep(0.02)


def test_calls_and_casts_wait_for_a_full_broker_and_none_is_lost(
    small_bus: Bus, small_broker: BrokerProcess, latch: Latch
) -> None:
    ran: list[int] = []

    def work(context: Any, method: str, args: dict) -> Any:
        if method == "cast":
            latch.hold()
            ran.append(args["n"])
        return method

    small_bus.serve(work, prefetch=1)
    assert small_bus.call("before") == "before"  # the service has published, so it may be held as well
    casts = [green.spawn(small_bus.cast, "cast", n=n, text=TEXT) for n in range(COUNT)]
    latch.wait_begun()
    wait_until(lambda: blocked(small_broker))
    with pytest.raises(rpc.RPCTimeout):
        small_bus.call("during", timeout=0.3)
    with pytest.raises(rpc.RPCTimeout, match="outcome unknown"):
        rpc.Client(small_bus.topic, timeout=0.3).cast(small_bus.context, "late", text=TEXT)
    late = green.spawn(small_bus.call, "patient", timeout=2 * PATIENCE_S)
    latch.go.send()
    for cast in casts:
        cast.wait()
    assert late.wait() == "patient"
    wait_until(lambda: len(ran) >= COUNT)
    assert sorted(ran) == list(range(COUNT))
    assert blocked(small_broker) is None
    assert small_bus.call("after") == "after"


def test_a_cast_of_a_service_ends_while_the_broker_is_full(
    small_bus: Bus, small_broker: BrokerProcess, latch: Latch
) -> None:
    """What a service publishes must not keep it from acknowledging what it has: that is what makes room."""
    results: list[str] = []

    def work(context: Any, method: str, args: dict) -> Any:
        if method == "cast":
            latch.hold()
        elif method == "relay":
            latch.hold()
            results.append("relayed")
        return method

    small_bus.serve(work, prefetch=2)
    relay = green.spawn(small_bus.call, "relay", timeout=2 * PATIENCE_S)
    latch.wait_begun()
    casts = [green.spawn(small_bus.cast, "cast", n=n, text=TEXT) for n in range(COUNT)]
    wait_until(lambda: blocked(small_broker))
    latch.go.send()
    assert relay.wait() == "relay"
    for cast in casts:
        cast.wait()
    assert results == ["relayed"]
