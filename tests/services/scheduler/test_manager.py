"""nova-scheduler: one host for each instance, another where the first is dead, a reason where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nova import flags, green, rpc
from nova.context import get_admin_context
from nova.db import services, session, volumes
from nova.scheduler.manager import SchedulerManager

CONTEXT = get_admin_context()
FLAGS = flags.FLAGS


class Line:
    """Where casts of the test go: `told` is what the hosts heard; hosts in `deaf` do not listen."""

    told: list[tuple[str, str, dict[str, Any]]]
    deaf: set[str]

    def __init__(self, topic: str, server: str | None = None, timeout: float | None = None) -> None:
        self.key = f"{topic}.{server}"

    def cast(self, context: Any, method: str, **args: Any) -> None:
        if self.key in self.deaf:
            raise rpc.NoSuchTopic(f"nobody listens on {self.key}")
        self.told.append((self.key, method, args))


@pytest.fixture
def line() -> type[Line]:
    return type("Line", (Line,), {"told": [], "deaf": set()})


@pytest.fixture
def scheduler(state_path: Path, line: type[Line]) -> SchedulerManager:
    manager = SchedulerManager("s1", client=line)  # type: ignore[arg-type]
    manager.init_host()
    return manager


def beat(*hosts: str, topic: str = "compute", **values: Any) -> None:
    for host in hosts:
        services.report(host, f"nova-{topic}", topic, **{"state": "ready", **values})


def bury(host: str) -> None:
    """Make the last heartbeat of a host old."""
    with session.begin() as s:
        for row in s.query(services.Service).where(services.Service.host == host):
            row.last_seen_up = row.last_seen_up - 1000.0


def test_an_instance_is_given_to_the_host_with_the_fewest_cores(
    scheduler: SchedulerManager, line: type[Line], make_instance: Callable[..., int], row
) -> None:
    beat("c1", "c2")
    make_instance(host="c1", state="running", task=None, vcpus=4)
    instance = make_instance()
    assert scheduler.run_instance(CONTEXT, instance_id=instance) == "c2"
    assert (row(instance).host, row(instance).task, row(instance).attempts) == ("c2", "scheduled", 1)
    assert line.told == [("compute.c2", "run_instance", {"instance_id": instance})]


def test_a_second_scheduler_does_not_place_it_again(scheduler: SchedulerManager, line, make_instance) -> None:
    beat("c1", "c2")
    instance = make_instance()
    other = SchedulerManager("s2", client=line)
    pool = green.GreenPool()
    results = [pool.spawn(manager.run_instance, CONTEXT, instance) for manager in (scheduler, other)]
    assert [result.wait() for result in results].count(None) == 1
    assert len(line.told) == 1


def test_twenty_at_once_fill_two_hosts_evenly_and_never_over(
    scheduler: SchedulerManager, line, make_instance, row
) -> None:
    beat("c1", "c2")
    ids = [make_instance() for _ in range(20)]
    with FLAGS.override(max_cores=8):
        list(green.GreenPool(20).imap(lambda instance: scheduler.run_instance(CONTEXT, instance), ids))
    assert Counter(row(instance).host for instance in ids) == {"c1": 8, "c2": 8, None: 4}
    assert Counter(row(instance).state for instance in ids) == {"pending": 16, "error": 4}


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda: None, "no host is known"),
        (lambda: (beat("c1"), bury("c1")), "no host is up"),
        (lambda: (beat("c1"), services.set_disabled("c1", "nova-compute", True)), "no host is up"),
    ],
    ids=["unknown", "dead", "disabled"],
)
def test_without_a_valid_host_the_instance_is_in_error_and_says_why(
    scheduler: SchedulerManager, make_instance, row, prepare, reason: str
) -> None:
    prepare()
    instance = make_instance()
    assert scheduler.run_instance(CONTEXT, instance) is None
    assert row(instance).state == "error"
    assert row(instance).reason.startswith(f"NoValidHost: {reason}")
    assert row(instance).terminated_at is not None


def test_a_host_that_is_starting_is_waited_for(scheduler: SchedulerManager, make_instance, row) -> None:
    beat("c1", state="starting")
    instance = make_instance()
    scheduler.run_instance(CONTEXT, instance)
    assert (row(instance).state, row(instance).task) == ("pending", "scheduling")
    beat("c1")
    with FLAGS.override(scheduler_retry_after=-1.0):
        scheduler.place_what_waits(CONTEXT)
    assert row(instance).host == "c1"


def test_a_host_that_does_not_listen_is_passed_over(
    scheduler: SchedulerManager, line, make_instance, row
) -> None:
    beat("c1", "c2")
    line.deaf.add("compute.c1")
    ids = [make_instance() for _ in range(4)]
    for instance in ids:
        scheduler.run_instance(CONTEXT, instance)
    assert {row(instance).host for instance in ids} == {"c2"}
    line.deaf.add("compute.c2")
    last = make_instance()
    scheduler.run_instance(CONTEXT, last)
    assert row(last).reason == "NoValidHost: every host that is up has failed"


@pytest.mark.parametrize("task", ["scheduled", "building"])
def test_what_a_dead_host_had_not_finished_goes_to_another(
    scheduler: SchedulerManager, line, make_instance, row, task: str
) -> None:
    beat("c1", "c2")
    bury("c1")
    moved, kept = make_instance(host="c1", task=task), make_instance(host="c2", task=task)
    with FLAGS.override(scheduler_retry_after=-1.0):
        scheduler.place_what_waits(CONTEXT)
    assert (row(moved).host, row(moved).task) == ("c2", "scheduled")
    assert (row(kept).host, row(kept).task) == ("c2", task)
    assert [key for key, _, _ in line.told] == ["compute.c2"]


def test_after_three_hosts_it_is_an_error(scheduler: SchedulerManager, make_instance, row) -> None:
    beat("c1")
    instance = make_instance(attempts=3)
    scheduler.run_instance(CONTEXT, instance)
    assert row(instance).reason == "NoValidHost: 3 hosts were tried"


def test_a_message_that_was_lost_costs_time_only(scheduler: SchedulerManager, line, make_instance, row) -> None:
    beat("c1")
    instance = make_instance()
    scheduler.place_what_waits(CONTEXT)
    assert line.told == []  # too young: its message may be on the way
    with FLAGS.override(scheduler_retry_after=-1.0):
        scheduler.place_what_waits(CONTEXT)
    assert row(instance).host == "c1"


def test_what_ends_on_a_dead_host_counts_as_ended(scheduler: SchedulerManager, make_instance, row) -> None:
    beat("c1", "c2")
    bury("c1")
    dead = make_instance(host="c1", state="shutting-down", task="deleting")
    alive = make_instance(host="c2", state="shutting-down", task="deleting")
    scheduler.place_what_waits(CONTEXT)
    assert (row(dead).state, row(alive).state) == ("terminated", "shutting-down")


def test_a_volume_goes_where_the_least_is(scheduler: SchedulerManager, line) -> None:
    beat("v1", "v2", topic="volume")
    with session.begin() as s:
        columns = {"project_id": "p", "user_id": "u", "availability_zone": "nova"}
        volumes.create(s, **columns, size_gb=5, host="v1", status="available")
        new = volumes.create(s, **columns, size_gb=1).id
        large = volumes.create(s, **columns, size_gb=20000).id
    assert scheduler.create_volume(CONTEXT, volume_id=new) == "v2"
    assert scheduler.create_volume(CONTEXT, volume_id=large) is None
    assert line.told == [("volume.v2", "create_volume", {"volume_id": new})]
    with session.read() as s:
        assert volumes.get(s, large).reason == "NoValidHost: no host has room for 20000 GB"


def test_instances_of_states_that_wait_for_nobody_are_left_alone(
    scheduler: SchedulerManager, line, make_instance
) -> None:
    beat("c1")
    for state in ("running", "stopped", "terminated", "error"):
        scheduler.run_instance(CONTEXT, make_instance(state=state, task=None))
    assert line.told == []
