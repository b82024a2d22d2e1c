"""nova-compute: runs the instances of its host.

The row in the database says what is wanted, the driver what is. Every method reads the row, does the steps that
are missing and writes the row; each may run again from the start after a death at any point. One instance has
one method at a time; `recovery` decides what a restart, or the check every few seconds, has to finish. A method
that finds the instance on another host does nothing: the scheduler has given it away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nova import exception, flags, manager, rpc
from nova.compute import recovery
from nova.compute.driver import Driver, Guest
from nova.compute.fake import FakeDriver
from nova.compute.recovery import Action
from nova.context import get_admin_context
from nova.db import instances as db
from nova.db import keypairs, session, volumes
from nova.keyed import KeyedLocks

log = logging.getLogger(__name__)

FLAGS = flags.FLAGS
flags.DEFINE_enum("compute_driver", "fake", ("fake",), "hypervisor that runs the instances")
flags.DEFINE_string("instances_path", "$state_path/instances", "directory of the instances of all hosts")
flags.DEFINE_float("network_timeout", 30.0, "seconds without a sign of life of nova-network before a step fails")
flags.DEFINE_float("build_timeout", 120.0, "seconds for which building an instance is tried again")

# Who asks again later may have an answer; everything else would fail again.
_TRANSIENT = (rpc.NoSuchTopic, rpc.RPCTimeout, rpc.LinkClosed, exception.TemporaryError)


class ComputeManager(manager.Manager):
    def __init__(
        self, host: str | None = None, driver: Driver | None = None, client: type[rpc.Client] = rpc.Client
    ) -> None:
        super().__init__(host)
        self.driver: Driver = driver or FakeDriver(Path(FLAGS.instances_path, self.host))
        self._network = client(FLAGS.network_topic, timeout=FLAGS.network_timeout)
        self._busy = KeyedLocks()

    def init_host(self) -> None:
        """What needs nobody else is settled now; what needs the network service, once it answers."""
        session.sync()
        self.driver.init_host()
        self._reconcile(get_admin_context(), local_only=True)

    @manager.periodic_task(spacing=5, run_immediately=True)
    def sync_instances(self, context: Any) -> None:
        """Finish what a death interrupted, and follow what happened to guests behind our back."""
        self._reconcile(context, local_only=False)
        self._reconcile_volumes(context)

    # Methods of the life of an instance

    @manager.idempotent
    def run_instance(self, context: Any, instance_id: int) -> None:
        """Build an instance that was scheduled to this host, or go on building it."""
        with self._busy.hold(instance_id):
            instance = self._begin(instance_id, (db.PENDING,), (db.SCHEDULED, db.BUILDING), db.BUILDING)
            if instance is None:
                return
            try:
                address = self._network.call(context, "allocate_fixed_ip", instance_id=instance_id)
                self.driver.spawn(self._guest(instance, address))
            except exception.Error as error:
                if isinstance(error, _TRANSIENT) and instance.age_s < FLAGS.build_timeout:
                    raise  # `sync_instances` goes on with it
                self._give_up(context, instance_id, error)
                return
            if not self._finish(instance_id, (db.PENDING,), db.RUNNING, launched=True):
                log.info("instance %d was taken away while it was built", instance_id)
                if self._has_left(instance_id):
                    self.driver.destroy(instance_id)

    @manager.idempotent
    def terminate_instance(self, context: Any, instance_id: int) -> None:
        """End an instance, whatever it is doing, and give back all it has."""
        with self._busy.hold(instance_id):
            old = (db.PENDING, db.RUNNING, db.STOPPING, db.STOPPED, db.SHUTTING_DOWN)
            if self._begin(instance_id, old, None, db.DELETING, state=db.SHUTTING_DOWN) is None:
                return
            self._clear_away(context, instance_id)
            self._finish(instance_id, (db.SHUTTING_DOWN,), db.TERMINATED)

    @manager.idempotent
    def stop_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._begin(instance_id, (db.STOPPING, db.STOPPED), None, None, state=db.STOPPING):
                self.driver.power_off(instance_id)
                self._finish(instance_id, (db.STOPPING,), db.STOPPED)

    @manager.idempotent
    def start_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._begin(instance_id, (db.PENDING,), (db.STARTING,), db.STARTING):
                self.driver.power_on(instance_id)
                self._finish(instance_id, (db.PENDING,), db.RUNNING)

    @manager.idempotent
    def reboot_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._begin(instance_id, (db.RUNNING,), None, db.REBOOTING):
                try:
                    self.driver.reboot(instance_id)
                finally:
                    self._finish(instance_id, (db.RUNNING,), db.RUNNING)

    @manager.idempotent
    def get_console_output(self, context: Any, instance_id: int) -> str:
        """What the guest has written. Raises `DriverError` where there is no guest."""
        return self.driver.console(instance_id)

    # Volumes of an instance

    @manager.idempotent
    def attach_volume(self, context: Any, instance_id: int, volume_id: int) -> None:
        """Plug in a volume that is being attached; where that fails it is available again."""
        with self._busy.hold(instance_id):
            with session.read() as s:
                volume = volumes.get(s, volume_id)
            if volume.status != volumes.ATTACHING or volume.instance_id != instance_id or not volume.device:
                return
            try:
                self.driver.attach_volume(instance_id, volume_id, volume.device)
            except exception.Error:
                with session.begin() as s:
                    volumes.release(s, volume_id)
                raise
            with session.begin() as s:
                volumes.move(s, volume_id, (volumes.ATTACHING,), volumes.IN_USE)

    @manager.idempotent
    def detach_volume(self, context: Any, instance_id: int, volume_id: int) -> None:
        with self._busy.hold(instance_id):
            with session.read() as s:
                volume = volumes.get(s, volume_id)
            if volume.status != volumes.DETACHING or volume.instance_id != instance_id:
                return
            self.driver.detach_volume(instance_id, volume_id)
            with session.begin() as s:
                volumes.release(s, volume_id)

    # Steps

    def _begin(
        self,
        instance_id: int,
        states: tuple[str, ...],
        tasks: tuple[str, ...] | None,
        task: str | None,
        **change: Any,
    ) -> db.Instance | None:
        """Claim a step: the row, if it is ours and in one of the states (and tasks); None where it is not."""
        with session.begin() as s:
            found = db.locked(s, instance_id)
            if found is None or found.host != self.host or found.state not in states:
                return None
            if tasks is not None and found.task not in tasks:
                return None
            return db.move(s, instance_id, states, change.get("state", found.state), task=task)

    def _finish(self, instance_id: int, old: tuple[str, ...], new: str, launched: bool = False) -> bool:
        with session.begin() as s:
            found = db.locked(s, instance_id)
            if found is None or found.host != self.host:
                return False
            values: dict[str, Any] = {"task": None, "reason": found.reason}
            if launched:
                values.update(reason="", launched_at=found.launched_at or session.now())
            return db.move(s, instance_id, old, new, **values) is not None

    def _has_left(self, instance_id: int) -> bool:
        """Whether the instance is no business of this host any more."""
        with session.read() as s:
            found = s.get(db.Instance, instance_id)
        return found is None or found.host != self.host or found.is_gone

    def _give_up(self, context: Any, instance_id: int, error: Exception) -> None:
        log.error("instance %d cannot be built: %s", instance_id, error)
        with session.begin() as s:
            if (
                db.move(s, instance_id, (db.PENDING,), db.ERROR, reason=f"{type(error).__name__}: {error}")
                is None
            ):
                return
        self._clear_away(context, instance_id)

    def _clear_away(self, context: Any, instance_id: int) -> None:
        """Guest, volumes and addresses, in this order: an address is free when nothing answers on it."""
        self.driver.destroy(instance_id)
        with session.begin() as s:
            for volume in volumes.of_instance(s, instance_id):
                volumes.release(s, volume.id)
        try:
            self._network.call(context, "deallocate_fixed_ip", instance_id=instance_id)
        except rpc.RpcError as error:
            # The row says that the instance is gone, so nova-network's reaper takes the address back.
            log.warning("instance %d: its address is left to the reaper: %s", instance_id, error)

    def _guest(self, instance: db.Instance, address: str) -> Guest:
        with session.read() as s:
            key = keypairs.find(s, instance.project_id, instance.key_name) if instance.key_name else None
        return Guest(
            id=instance.id,
            name=f"instance-{instance.id:08x}",
            image_id=instance.image_id,
            vcpus=instance.vcpus,
            memory_mb=instance.memory_mb,
            disk_gb=instance.disk_gb,
            address=address,
            public_key=key.public_key if key else "",
            user_data=instance.user_data or "",
        )

    # Recovery

    def _reconcile(self, context: Any, local_only: bool) -> None:
        guests = self.driver.guests()
        with session.read() as s:
            rows = {row.id: row for row in db.on_host(s, self.host)}
        for instance_id in sorted(rows.keys() | guests.keys()):
            if self._busy.is_held(instance_id):
                continue  # a method is at it
            row = rows.get(instance_id)
            guest = _guest_state(guests.get(instance_id))
            action = recovery.decide(row.state if row else None, row.task if row else None, guest)
            if action is Action.NOTHING or (local_only and action in _NEEDS_OTHERS):
                continue
            log.info("instance %d is %s, its guest %s: %s", instance_id, _words(row), guest.value, action.value)
            self._guarded(self._act, context, action, instance_id)

    def _reconcile_volumes(self, context: Any) -> None:
        with session.read() as s:
            moving = volumes.in_status(s, volumes.ATTACHING, volumes.DETACHING)
            mine = {row.id for row in db.on_host(s, self.host)}
        for volume in moving:
            if volume.instance_id not in mine or self._busy.is_held(volume.instance_id):
                continue
            finish = self.attach_volume if volume.status == volumes.ATTACHING else self.detach_volume
            self._guarded(finish, context, volume.instance_id, volume.id)

    def _guarded(self, step: Callable[..., None], *args: Any) -> None:
        """One instance that resists does not keep the others waiting."""
        try:
            step(*args)
        except Exception:
            log.exception("%s failed; trying again later", step.__name__.strip("_"))

    def _act(self, context: Any, action: Action, instance_id: int) -> None:
        match action:
            case Action.RUN:
                self.run_instance(context, instance_id)
            case Action.START:
                self.start_instance(context, instance_id)
            case Action.STOP:
                self.stop_instance(context, instance_id)
            case Action.TERMINATE:
                self.terminate_instance(context, instance_id)
            case Action.SETTLE:
                self._finish(instance_id, (db.RUNNING,), db.RUNNING)
            case Action.MARK_STOPPED:
                self._finish(instance_id, (db.RUNNING,), db.STOPPED)
            case Action.MARK_LOST:
                self._mark_lost(context, instance_id)
            case Action.DESTROY:
                self.driver.destroy(instance_id)

    def _mark_lost(self, context: Any, instance_id: int) -> None:
        alive = (db.PENDING, db.RUNNING, db.STOPPING, db.STOPPED)
        reason = f"the guest disappeared from {self.host}"
        with self._busy.hold(instance_id):
            with session.begin() as s:
                db.move(s, instance_id, alive, db.ERROR, reason=reason)
            self._clear_away(context, instance_id)


_NEEDS_OTHERS = {Action.RUN, Action.TERMINATE, Action.MARK_LOST}


def _guest_state(is_on: bool | None) -> recovery.Guest:
    if is_on is None:
        return recovery.Guest.ABSENT
    return recovery.Guest.ON if is_on else recovery.Guest.OFF


def _words(row: db.Instance | None) -> str:
    return "unknown here" if row is None else f"{row.state} ({row.task})" if row.task else row.state
