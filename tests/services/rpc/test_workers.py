"""Greenlets that run many jobs."""

from __future__ import annotations

import contextvars

from nova import green
from nova.rpc.workers import MAX_IDLE, Workers

_variable: contextvars.ContextVar[int | None] = contextvars.ContextVar("tests_workers", default=None)


def test_jobs_that_do_not_wait_share_a_greenlet_and_run_in_order() -> None:
    workers, seen = Workers(), []
    for number in range(5):
        workers.spawn(lambda n: seen.append((n, green.getcurrent())), number)
    assert seen == []
    green.sleep(0)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert len({id(greenlet) for _, greenlet in seen}) == 1
    workers.spawn(lambda: seen.append((5, green.getcurrent())))
    green.sleep(0)
    assert seen[5][1] is seen[0][1]


def test_jobs_that_wait_run_side_by_side_and_their_greenlets_are_used_again() -> None:
    workers, go, ended = Workers(), green.Event(), []

    def wait(number: int) -> None:
        go.wait()
        ended.append((number, green.getcurrent()))

    for number in range(MAX_IDLE + 3):
        workers.spawn(wait, number)
    green.sleep(0)
    go.send()
    green.sleep(0)
    first = {greenlet for _, greenlet in ended}
    assert len(first) == MAX_IDLE + 3
    assert sum(greenlet.dead for greenlet in first) == 3
    again: list = []
    for _ in range(MAX_IDLE):
        workers.spawn(lambda: (green.sleep(0), again.append(green.getcurrent())))
    green.sleep(0)
    green.sleep(0)
    assert len(again) == MAX_IDLE
    assert set(again) <= first


def test_what_a_job_sets_in_contextvars_ends_with_it() -> None:
    workers, seen = Workers(), []

    def job(number: int) -> None:
        seen.append(_variable.get())
        _variable.set(number)
        green.sleep(0)
        seen.append(_variable.get())

    for _ in range(2):
        workers.spawn(job, 1)
        workers.spawn(job, 2)
        green.sleep(0)
        green.sleep(0)
    assert seen == [None, None, 1, 2, None, None, 1, 2]
    assert _variable.get() is None


def test_a_job_that_ends_its_greenlet_keeps_no_other_from_beginning() -> None:
    workers, seen = Workers(), []

    def leave() -> None:
        raise green.GreenletExit

    workers.spawn(leave)
    workers.spawn(seen.append, 1)
    green.sleep(0)
    green.sleep(0)
    assert seen == [1]
