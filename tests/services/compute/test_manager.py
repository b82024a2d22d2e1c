"""nova-compute: every step finishes what is wanted, may be repeated, and survives a death before or after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nova import exception, flags, rpc
from nova.compute.driver import DriverError
from nova.compute.fake import FakeDriver
from nova.compute.manager import ComputeManager
from nova.context import get_admin_context
from nova.db import networks, session, volumes
from nova.service import Service
from nova.testing import service_runner

CONTEXT = get_admin_context()
FLAGS = flags.FLAGS


@pytest.fixture
def network(state_path: Path, bus: None) -> Iterator[Service]:
    service = Service.create(topic="network", host="n1")
    with service_runner(service):
        yield service


@pytest.fixture
def compute(state_path: Path, network: Service) -> ComputeManager:
    return started()


def started(host: str = "c1") -> ComputeManager:
    """A manager as it is after a start of its process."""
    manager = ComputeManager(host)
    manager.init_host()
    return manager


@pytest.fixture
def scheduled(make_instance: Callable[..., int]) -> int:
    return make_instance(host="c1", task="scheduled")


def guests(host: str = "c1") -> dict[int, bool]:
    return FakeDriver(Path(FLAGS.instances_path, host)).guests()


def address(instance_id: int) -> str | None:
    with session.read() as s:
        return networks.fixed_of(s, [instance_id]).get(instance_id)


def test_an_instance_runs_with_an_address_and_ends_without(compute: ComputeManager, scheduled: int, row) -> None:
    compute.run_instance(CONTEXT, instance_id=scheduled)
    assert (row(scheduled).state, row(scheduled).task, guests()) == ("running", None, {scheduled: True})
    assert row(scheduled).launched_at is not None
    assert f"with address {address(scheduled)}" in compute.get_console_output(CONTEXT, scheduled)
    compute.terminate_instance(CONTEXT, instance_id=scheduled)
    assert (row(scheduled).state, guests(), address(scheduled)) == ("terminated", {}, None)


def test_every_method_may_be_repeated(compute: ComputeManager, scheduled: int, row) -> None:
    compute.run_instance(CONTEXT, scheduled)
    first = row(scheduled).launched_at
    compute.run_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, row(scheduled).launched_at) == ("running", first)
    for _ in range(2):
        compute.terminate_instance(CONTEXT, scheduled)
    compute.run_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, guests()) == ("terminated", {})


def test_stop_start_and_reboot(compute: ComputeManager, scheduled: int, row) -> None:
    compute.run_instance(CONTEXT, scheduled)
    set_row(scheduled, state="stopping")
    compute.stop_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, guests()) == ("stopped", {scheduled: False})
    set_row(scheduled, state="pending", task="starting")
    compute.start_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, row(scheduled).task, guests()) == ("running", None, {scheduled: True})
    compute.reboot_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, row(scheduled).task) == ("running", None)
    assert compute.get_console_output(CONTEXT, scheduled).endswith("switched off\nswitched on\nrebooted\n")


def test_an_instance_of_another_host_is_left_alone(compute: ComputeManager, make_instance, row) -> None:
    other = make_instance(host="c2", task="scheduled")
    compute.run_instance(CONTEXT, other)
    compute.terminate_instance(CONTEXT, other)
    assert (row(other).state, row(other).task, guests()) == ("pending", "scheduled", {})


def test_a_build_that_fails_is_an_error_with_its_reason_and_leaves_nothing(
    compute: ComputeManager, scheduled: int, row
) -> None:
    with FLAGS.override(fake_driver_fail=["spawn:after"]):
        compute.run_instance(CONTEXT, scheduled)
    assert row(scheduled).state == "error"
    assert "told to fail at spawn:after" in row(scheduled).reason
    assert (guests(), address(scheduled)) == ({}, None)


def test_a_build_without_a_network_service_is_tried_again_until_there_is_one(
    state_path: Path, bus: None, scheduled: int, row
) -> None:
    compute = started()
    with pytest.raises(rpc.NoSuchTopic):
        compute.run_instance(CONTEXT, scheduled)
    assert (row(scheduled).state, row(scheduled).task) == ("pending", "building")
    with service_runner(Service.create(topic="network", host="n1")):
        compute.sync_instances(CONTEXT)
    assert row(scheduled).state == "running"


def test_a_build_that_was_tried_for_too_long_is_given_up(
    state_path: Path, bus: None, scheduled: int, row
) -> None:
    compute = started()
    with FLAGS.override(build_timeout=0.0):
        compute.run_instance(CONTEXT, scheduled)
    assert row(scheduled).state == "error"
    assert row(scheduled).reason.startswith("NoSuchTopic")


# A death is a manager that is left where it is: the next one starts from the rows and the guests alone.


class Died(BaseException):
    """Stands for `kill -9`: no handler of ours catches it, so nothing after it runs."""


class DyingDriver(FakeDriver):
    def __init__(self, root: Path, step: str) -> None:
        super().__init__(root)
        self.step = step

    def _fault(self, step: str) -> None:
        if step == self.step:
            raise Died


def die_at(step: str, method: str, instance_id: int) -> None:
    manager = ComputeManager("c1", driver=DyingDriver(Path(FLAGS.instances_path, "c1"), step))
    manager.driver.init_host()
    with pytest.raises(Died):
        getattr(manager, method)(CONTEXT, instance_id)


@pytest.mark.parametrize("step", ["spawn", "spawn:after"])
def test_a_death_while_building_ends_in_a_running_instance(
    network: Service, scheduled: int, row, step: str
) -> None:
    die_at(step, "run_instance", scheduled)
    started().sync_instances(CONTEXT)
    assert (row(scheduled).state, guests()) == ("running", {scheduled: True})
    assert address(scheduled)


@pytest.mark.parametrize("step", ["destroy", "destroy:after"])
def test_a_death_while_terminating_ends_in_nothing(network: Service, scheduled: int, row, step: str) -> None:
    started().run_instance(CONTEXT, scheduled)
    die_at(step, "terminate_instance", scheduled)
    assert row(scheduled).state == "shutting-down"
    started().sync_instances(CONTEXT)
    assert (row(scheduled).state, guests(), address(scheduled)) == ("terminated", {}, None)


@pytest.mark.parametrize("step", ["reboot", "reboot:after"])
def test_a_death_while_rebooting_leaves_it_running(network: Service, scheduled: int, row, step: str) -> None:
    started().run_instance(CONTEXT, scheduled)
    die_at(step, "reboot_instance", scheduled)
    started()
    assert (row(scheduled).state, row(scheduled).task) == ("running", None)


def test_a_start_adopts_follows_and_clears(network: Service, make_instance, row) -> None:
    kept, off, lost, moved = (make_instance(host="c1", task="scheduled") for _ in range(4))
    before = started()
    for instance in (kept, off, lost, moved):
        before.run_instance(CONTEXT, instance)
    before.driver.power_off(off)
    before.driver.destroy(lost)
    set_row(moved, host="c2")
    started().sync_instances(CONTEXT)
    assert [row(instance).state for instance in (kept, off, lost)] == ["running", "stopped", "error"]
    assert "disappeared from c1" in row(lost).reason
    assert guests() == {kept: True, off: False}
    assert (row(moved).state, row(moved).host) == ("running", "c2")


@pytest.mark.parametrize("seen", [{}, {1: False}], ids=["nothing", "switched off"])
def test_a_guest_that_was_not_there_a_moment_ago_is_neither_lost_nor_stopped(
    network: Service, scheduled: int, row, seen: dict[int, bool]
) -> None:
    """Rows and guests cannot be read at once: an instance that starts between the two looks dead."""
    started().run_instance(CONTEXT, scheduled)

    class Late(FakeDriver):
        def guests(self) -> dict[int, bool]:
            found, self.guests = seen, super().guests  # type: ignore[method-assign]
            return found

    manager = ComputeManager("c1", driver=Late(Path(FLAGS.instances_path, "c1")))
    manager.sync_instances(CONTEXT)
    assert (row(scheduled).state, guests()) == ("running", {scheduled: True})


def test_one_instance_that_resists_does_not_keep_the_others_waiting(network: Service, make_instance, row) -> None:
    bad, good = (make_instance(host="c1", state="shutting-down", task="deleting") for _ in range(2))

    class Stubborn(FakeDriver):
        def destroy(self, instance_id: int) -> None:
            if instance_id == bad:
                raise DriverError("no")
            super().destroy(instance_id)

    manager = ComputeManager("c1", driver=Stubborn(Path(FLAGS.instances_path, "c1")))
    manager.init_host()
    manager.sync_instances(CONTEXT)
    assert (row(bad).state, row(good).state) == ("shutting-down", "terminated")


def set_row(instance_id: int, **values: object) -> None:
    from nova.db import instances

    with session.begin() as s:
        found = instances.get(s, instance_id)
        for name, value in values.items():
            setattr(found, name, value)


# Volumes


@pytest.fixture
def volume(scheduled: int) -> int:
    with session.begin() as s:
        made = volumes.create(
            s,
            project_id="nova",
            user_id="u",
            size_gb=1,
            availability_zone="nova",
            host="v1",
            status="attaching",
            instance_id=scheduled,
            device="/dev/vdb",
        )
        return made.id


def volume_row(volume_id: int) -> volumes.Volume:
    with session.read() as s:
        return volumes.get(s, volume_id)


def test_a_volume_is_attached_detached_and_released_with_its_instance(
    compute: ComputeManager, scheduled: int, volume: int
) -> None:
    compute.run_instance(CONTEXT, scheduled)
    for _ in range(2):
        compute.attach_volume(CONTEXT, scheduled, volume)
    assert volume_row(volume).status == "in-use"
    with session.begin() as s:
        volumes.move(s, volume, ("in-use",), "detaching")
    for _ in range(2):
        compute.detach_volume(CONTEXT, scheduled, volume)
    assert (volume_row(volume).status, volume_row(volume).instance_id) == ("available", None)
    with session.begin() as s:
        volumes.move(s, volume, ("available",), "in-use", instance_id=scheduled)
    compute.terminate_instance(CONTEXT, scheduled)
    assert (volume_row(volume).status, volume_row(volume).instance_id) == ("available", None)


def test_a_volume_that_cannot_be_attached_is_available_again(
    compute: ComputeManager, scheduled: int, volume: int
) -> None:
    compute.run_instance(CONTEXT, scheduled)
    with FLAGS.override(fake_driver_fail=["attach_volume"]), pytest.raises(exception.Error):
        compute.attach_volume(CONTEXT, scheduled, volume)
    assert volume_row(volume).status == "available"


def test_an_attachment_that_was_interrupted_goes_on(compute: ComputeManager, scheduled: int, volume: int) -> None:
    compute.run_instance(CONTEXT, scheduled)
    started().sync_instances(CONTEXT)
    assert volume_row(volume).status == "in-use"
