"""nova-compute: runs the instances of its host.

The row in the database says what is wanted, the driver what is. Every method reads the row, does the steps that are
missing and writes the row; each may run again from the start after a death at any point. One instance has one method at
a time; `recovery` decides what a restart, or the check every few seconds, has to finish. A method that finds the
instance on another host does nothing: the scheduler has given it away.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nova import exception, flags, manager, rpc
from nova.compute.driver import Driver
from nova.compute.fake import FakeDriver
from nova.compute.reconcile import Act, Reconciler
from nova.compute.recovery import Action
from nova.compute.steps import Steps
from nova.context import get_admin_context
from nova.db import instances as db
from nova.db import session, volumes
from nova.keyed import KeyedLocks

log = logging.getLogger(__name__)

FLAGS = flags.FLAGS
flags.DEFINE_enum("compute_driver", "fake", ("fake",), "hypervisor that runs the instances")
flags.DEFINE_string("instances_path", "$state_path/instances", "directory of the instances of all hosts")
flags.DEFINE_float(
    "network_timeout", 30.0, "seconds without a sign of life of nova-network before a step fails", least=0.01
)
flags.DEFINE_float("build_timeout", 120.0, "seconds for which building an instance is tried again", least=0)

# Who asks again later may have an answer; everything else would fail again.
_TRANSIENT = (rpc.NoSuchTopic, rpc.RPCTimeout, rpc.LinkClosed, exception.TemporaryError)
_ALIVE = (db.PENDING, db.RUNNING, db.STOPPING, db.STOPPED)


class ComputeManager(manager.Manager):
    def __init__(
        self, host: str | None = None, driver: Driver | None = None, client: type[rpc.Client] = rpc.Client
    ) -> None:
        super().__init__(host)
        self.driver: Driver = driver or FakeDriver(Path(FLAGS.instances_path, self.host))
        network = client(FLAGS.network_topic, timeout=FLAGS.network_timeout)
        self._steps = Steps(self.host, self.driver, network)
        self._busy = KeyedLocks()
        self._reconciler = Reconciler(self.host, self.driver, self._busy, self._acts())

    def init_host(self) -> None:
        """What needs nobody else is settled now; what needs the network service, once it answers."""
        session.sync()
        self.driver.init_host()
        self._reconciler.instances(get_admin_context(), local_only=True)

    @manager.periodic_task(spacing=5, run_immediately=True)
    def sync_instances(self, context: Any) -> None:
        """Finish what a death interrupted, and follow what happened to guests behind our back."""
        self._reconciler.instances(context)
        finish = {volumes.ATTACHING: self.attach_volume, volumes.DETACHING: self.detach_volume}
        self._reconciler.volumes(context, finish)

    @manager.idempotent
    def run_instance(self, context: Any, instance_id: int) -> None:
        """Build an instance that was scheduled to this host, or go on building it."""
        with self._busy.hold(instance_id):
            waiting = (db.SCHEDULED, db.BUILDING)
            instance = self._steps.begin(instance_id, (db.PENDING,), waiting, task=db.BUILDING)
            if instance is None:
                return
            try:
                self._steps.build(context, instance)
            except exception.Error as error:
                if isinstance(error, _TRANSIENT) and instance.age_s < FLAGS.build_timeout:
                    raise  # `sync_instances` goes on with it
                self._steps.fail(context, instance_id, (db.PENDING,), f"{type(error).__name__}: {error}")
                return
            if not self._steps.finish(instance_id, (db.PENDING,), db.RUNNING, launched=True):
                log.info("instance %d was taken away while it was built", instance_id)
                if self._steps.has_left(instance_id):
                    self.driver.destroy(instance_id)

    @manager.idempotent
    def terminate_instance(self, context: Any, instance_id: int) -> None:
        """End an instance, whatever it is doing, and give back all it has."""
        with self._busy.hold(instance_id):
            old = (*_ALIVE, db.SHUTTING_DOWN)
            if self._steps.begin(instance_id, old, state=db.SHUTTING_DOWN, task=db.DELETING):
                self._steps.clear_away(context, instance_id)
                self._steps.finish(instance_id, (db.SHUTTING_DOWN,), db.TERMINATED)

    @manager.idempotent
    def stop_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._steps.begin(instance_id, (db.STOPPING, db.STOPPED), state=db.STOPPING):
                self.driver.power_off(instance_id)
                self._steps.finish(instance_id, (db.STOPPING,), db.STOPPED)

    @manager.idempotent
    def start_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._steps.begin(instance_id, (db.PENDING,), (db.STARTING,), task=db.STARTING):
                self.driver.power_on(instance_id)
                self._steps.finish(instance_id, (db.PENDING,), db.RUNNING)

    @manager.idempotent
    def reboot_instance(self, context: Any, instance_id: int) -> None:
        with self._busy.hold(instance_id):
            if self._steps.begin(instance_id, (db.RUNNING,), task=db.REBOOTING):
                try:
                    self.driver.reboot(instance_id)
                finally:
                    self._steps.finish(instance_id, (db.RUNNING,), db.RUNNING)

    @manager.idempotent
    def get_console_output(self, context: Any, instance_id: int) -> str:
        """What the guest has written. Raises `DriverError` where there is no guest."""
        return self.driver.console(instance_id)

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

    def _acts(self) -> Mapping[Action, Act]:
        """How each action of `recovery` is done; the reconciler holds the lock of those that are no methods."""

        def settle(context: Any, instance_id: int) -> None:
            self._steps.finish(instance_id, (db.RUNNING,), db.RUNNING)

        def mark_stopped(context: Any, instance_id: int) -> None:
            self._steps.finish(instance_id, (db.RUNNING,), db.STOPPED)

        def mark_lost(context: Any, instance_id: int) -> None:
            self._steps.fail(context, instance_id, _ALIVE, f"the guest disappeared from {self.host}")

        def destroy(context: Any, instance_id: int) -> None:
            self.driver.destroy(instance_id)

        return {
            Action.RUN: self.run_instance,
            Action.START: self.start_instance,
            Action.STOP: self.stop_instance,
            Action.TERMINATE: self.terminate_instance,
            Action.SETTLE: settle,
            Action.MARK_STOPPED: mark_stopped,
            Action.MARK_LOST: mark_lost,
            Action.DESTROY: destroy,
        }
