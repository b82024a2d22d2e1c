"""The steps that methods of nova-compute are made of: claim a row, do something to the guest, write the row.

Claiming and writing check that the instance is still this host's and in the state that the method expects, each in one
transaction; what lies between may take as long as it takes.
"""

from __future__ import annotations

import logging
from typing import Any

from nova import rpc
from nova.compute.driver import Driver, Guest
from nova.db import instances as db
from nova.db import keypairs, session, volumes

log = logging.getLogger(__name__)


class Steps:
    """Steps on the instances of one host. `network` is the way to nova-network."""

    def __init__(self, host: str, driver: Driver, network: Any) -> None:
        self.host = host
        self.driver = driver
        self.network = network

    def begin(
        self,
        instance_id: int,
        states: tuple[str, ...],
        tasks: tuple[str, ...] | None = None,
        *,
        state: str | None = None,
        task: str | None = None,
    ) -> db.Instance | None:
        """Claim: the row with its new `state` and `task`, None where it is not ours or not in `states` and `tasks`."""
        with session.begin() as s:
            found = db.locked(s, instance_id)
            if found is None or found.host != self.host or found.state not in states:
                return None
            if tasks is not None and found.task not in tasks:
                return None
            return db.move(s, instance_id, states, state or found.state, task=task)

    def finish(self, instance_id: int, old: tuple[str, ...], new: str, launched: bool = False) -> bool:
        """Write the outcome; False where the instance was changed or taken away meanwhile."""
        with session.begin() as s:
            found = db.locked(s, instance_id)
            if found is None or found.host != self.host:
                return False
            values: dict[str, Any] = {"task": None}
            if launched:
                values.update(reason="", launched_at=found.launched_at or session.now())
            return db.move(s, instance_id, old, new, **values) is not None

    def has_left(self, instance_id: int) -> bool:
        """Whether the instance is no business of this host any more."""
        with session.read() as s:
            found = s.get(db.Instance, instance_id)
        return found is None or found.host != self.host or found.is_gone

    def build(self, context: Any, instance: db.Instance) -> None:
        """An address, and a guest that has it. Raises `RpcError`, `DriverError` and what nova-network raises."""
        address = self.network.call(context, "allocate_fixed_ip", instance_id=instance.id)
        self.driver.spawn(_guest(instance, address))

    def fail(self, context: Any, instance_id: int, old: tuple[str, ...], reason: str) -> None:
        """End an instance in error, and give back all it has."""
        log.error("instance %d ends: %s", instance_id, reason)
        with session.begin() as s:
            if db.move(s, instance_id, old, db.ERROR, reason=reason) is None:
                return
        self.clear_away(context, instance_id)

    def clear_away(self, context: Any, instance_id: int) -> None:
        """Guest, volumes and addresses, in this order: an address is free when nothing answers on it."""
        self.driver.destroy(instance_id)
        with session.begin() as s:
            for volume in volumes.of_instance(s, instance_id):
                volumes.release(s, volume.id)
        try:
            self.network.call(context, "deallocate_fixed_ip", instance_id=instance_id)
        except rpc.RpcError as error:
            # The row says, or will say, that the instance is gone: nova-network's reaper takes the address back.
            log.warning("instance %d: its address is left to the reaper: %s", instance_id, error)


def _guest(instance: db.Instance, address: str) -> Guest:
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
