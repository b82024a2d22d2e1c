"""What USR1, the watchdog and the admin socket print of a process."""

from __future__ import annotations

from nova import green, stacks


def test_the_thread_that_runs_the_hub_comes_first_and_idle_ones_are_told_once() -> None:
    green.tpool.execute(int)  # its pool waits from now on
    lines = stacks.text("title", ["a call in flight"]).splitlines()
    heads = [line for line in lines if line.startswith("-- ")]
    assert lines[:3] == ["==== title", "a call in flight", "-- thread MainThread"]
    assert f"in {test_the_thread_that_runs_the_hub_comes_first_and_idle_ones_are_told_once.__name__}" in "".join(
        lines[: lines.index(heads[1])]
    )
    assert len([head for head in heads if "tpool_thread" in head]) == 1
    assert any(head.startswith("-- 20 threads tpool_thread_") for head in heads)


def test_greenlets_that_wait_at_the_same_place_are_told_once() -> None:
    gate = green.Event()
    waiting = [green.spawn(gate.wait) for _ in range(30)]
    green.sleep(0)
    told = f"-- {len(waiting)} greenlets GreenThread"
    assert told in stacks.text("title")
    gate.send(None)
    for each in waiting:
        each.wait()
    assert told not in stacks.text("title")
