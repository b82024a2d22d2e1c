"""What nova adds to eventlet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
from nova import green


@pytest.fixture(autouse=True)
def waiter() -> Iterator[None]:
    """Somebody who waits for a descriptor, as in every service; without one the hub just sleeps."""
    reading, writing = os.pipe()
    thread = green.spawn(green.wait_read, reading)
    yield
    thread.kill()
    os.close(reading)
    os.close(writing)


def stand_still(seconds: float) -> None:
    """One long turn of the hub, then a short one."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
    green.sleep(0.001)


def test_a_long_turn_of_the_hub_is_seen_by_everybody_who_asks() -> None:
    watch = green.HubWatch(window_s=60)
    stand_still(0.1)
    stand_still(0.1)
    assert [watch.lag_s() >= 0.1 for _ in range(3)] == [True, True, True]


def test_a_long_turn_of_the_hub_is_forgotten(until: Callable[..., object]) -> None:
    watch = green.HubWatch(window_s=0.2)
    stand_still(0.001)
    stand_still(1.0)
    assert watch.lag_s() >= 1.0
    until(lambda: watch.lag_s() < 1.0)
