"""nova-scheduler: finds a host for what has none, and another where the first one died.

A choice is one transaction that reads the load, chooses and writes the host into the row, so two schedulers
neither overbook a host nor place the same instance twice. Only then is the host told; a message that gets lost
costs time, not the instance, because the rows that wait are looked through again and again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import sqlalchemy
from sqlalchemy import orm

from nova import flags, manager, rpc, servicegroup
from nova.db import instances, session, volumes
from nova.db.services import Service
from nova.scheduler import driver
from nova.scheduler.driver import Host, Life, NoValidHost, Wish

log = logging.getLogger(__name__)

FLAGS = flags.FLAGS
flags.DEFINE_enum("scheduler_driver", "simple", tuple(driver.CHOICES), "how a host is chosen")
flags.DEFINE_integer("max_cores", 16, "vcpus that the instances of one host may have together", least=0)
flags.DEFINE_integer("max_gigabytes", 10000, "gigabytes that the volumes of one host may have together", least=0)
flags.DEFINE_integer("scheduler_max_attempts", 3, "hosts that are tried before an instance is in error", least=1)
flags.DEFINE_float(
    "scheduler_retry_after", 2.0, "seconds after which what waits for a host is looked at again", least=0
)
flags.DEFINE_float(
    "scheduler_wait_for_host", 15.0, "seconds to wait for a host that is starting or draining", least=0
)


class SchedulerManager(manager.Manager):
    def __init__(self, host: str | None = None, client: type[rpc.Client] = rpc.Client) -> None:
        super().__init__(host)
        self._client = client
        self._dice = random.Random()

    def init_host(self) -> None:
        session.sync()

    @manager.idempotent
    def run_instance(self, context: Any, instance_id: int) -> str | None:
        """Place an instance that waits for a host; returns the host, None where there is nothing to place."""
        return self._place(
            lambda excluded: self._place_instance(instance_id, excluded),
            lambda host: self._tell(context, FLAGS.compute_topic, host, "run_instance", instance_id=instance_id),
        )

    @manager.idempotent
    def create_volume(self, context: Any, volume_id: int) -> str | None:
        """Place a volume that has no host; returns the host, None where there is nothing to place."""
        return self._place(
            lambda excluded: self._place_volume(volume_id, excluded),
            lambda host: self._tell(context, FLAGS.volume_topic, host, "create_volume", volume_id=volume_id),
        )

    @manager.periodic_task(spacing=2)
    def place_what_waits(self, context: Any) -> None:
        """Place what nobody placed, and what was placed on a host that died before it had finished."""
        with session.read() as s:
            ending = instances.in_state(s, instances.SHUTTING_DOWN)
            if not (instances.waiting(s) or ending or volumes.in_status(s, volumes.CREATING)):
                return  # the usual case, and it keeps no writer waiting
        with session.begin() as s:
            down = _down(s, FLAGS.compute_topic)
            _bury(s, down)
            waiting = [item.id for item in instances.waiting(s) if _take_back(item, down)]
            down = _down(s, FLAGS.volume_topic)
            homeless = [
                item.id for item in volumes.in_status(s, volumes.CREATING) if _take_back_volume(item, down)
            ]
        for instance_id in waiting:
            self.run_instance(context, instance_id)
        for volume_id in homeless:
            self.create_volume(context, volume_id)

    def _place(self, choose: Callable[[set[str]], str | None], tell: Callable[[str], bool]) -> str | None:
        """The first host chosen that can be told; None where there is none, or nothing to place."""
        excluded: set[str] = set()
        while (host := choose(excluded)) is not None and not tell(host):
            excluded.add(host)
        return host

    def _place_instance(self, instance_id: int, excluded: set[str]) -> str | None:
        with session.begin() as s:
            hosts = _hosts(s, FLAGS.compute_topic, instances.load)
            instance = instances.locked(s, instance_id)
            if instance is None or instance.state != instances.PENDING:
                return None
            if instance.task != instances.SCHEDULING and instance.host not in excluded:
                return None
            wish = Wish(instance.vcpus, FLAGS.max_cores, "vcpus", instance.availability_zone, frozenset(excluded))
            try:
                chosen = self._choose(hosts, wish, instance.attempts)
            except NoValidHost as error:
                if not _is_worth_waiting(hosts, instance.age_s):
                    log.warning("instance %d: no valid host: %s", instance_id, error)
                    reason = f"NoValidHost: {error}"
                    instances.move(
                        s, instance_id, (instances.PENDING,), instances.ERROR, host=None, reason=reason
                    )
                return None
            instance.host, instance.task = chosen.name, instances.SCHEDULED
            instance.attempts += 1
        return chosen.name

    def _place_volume(self, volume_id: int, excluded: set[str]) -> str | None:
        with session.begin() as s:
            hosts = _hosts(s, FLAGS.volume_topic, volumes.load)
            volume = volumes.locked(s, volume_id)
            if volume is None or volume.status != volumes.CREATING:
                return None
            if volume.host is not None and volume.host not in excluded:
                return None
            wish = Wish(volume.size_gb, FLAGS.max_gigabytes, "GB", volume.availability_zone, frozenset(excluded))
            try:
                chosen = self._choose(hosts, wish, volume.attempts)
            except NoValidHost as error:
                if not _is_worth_waiting(hosts, volume.age_s):
                    log.warning("volume %d: no valid host: %s", volume_id, error)
                    volume.status, volume.host, volume.reason = volumes.ERROR, None, f"NoValidHost: {error}"
                return None
            volume.host = chosen.name
            volume.attempts += 1
        return chosen.name

    def _choose(self, hosts: list[Host], wish: Wish, attempts: int) -> Host:
        if attempts >= FLAGS.scheduler_max_attempts:
            raise NoValidHost(f"{attempts} hosts were tried")
        return driver.choose(driver.CHOICES[FLAGS.scheduler_driver], hosts, wish, self._dice)

    def _tell(self, context: Any, topic: str, host: str, method: str, **args: Any) -> bool:
        """Cast to a host; False where nobody listens there."""
        try:
            self._client(topic, server=host).cast(context, method, **args)
        except rpc.NoSuchTopic:
            log.warning("%s.%s does not listen though its heartbeat is young; trying another host", topic, host)
            return False
        return True


def _hosts(s: orm.Session, topic: str, load: Callable[[orm.Session], dict[str, tuple[int, int]]]) -> list[Host]:
    """The hosts of a topic; no other scheduler chooses among them before this transaction ends.

    The load is read when the hosts are locked: before, another scheduler may still be adding to it.
    """
    query = sqlalchemy.select(Service).where(Service.topic == topic).order_by(Service.host)
    rows = list(s.scalars(query.with_for_update(of=Service)))
    loads = load(s)
    return [Host(row.host, row.availability_zone, _life(row), *loads.get(row.host, (0, 0))) for row in rows]


def _down(s: orm.Session, topic: str) -> set[str]:
    query = sqlalchemy.select(Service).where(Service.topic == topic)
    return {row.host for row in s.scalars(query) if _life(row) is Life.DOWN}


def _life(row: Service) -> Life:
    if not servicegroup.service_is_up(row):
        return Life.DOWN
    if row.disabled:
        return Life.DISABLED
    return Life.READY if servicegroup.may_take_work(row) else Life.COMING


def _is_worth_waiting(hosts: list[Host], age_s: float) -> bool:
    """A host that is just starting is better than an error; `place_what_waits` asks again."""
    return age_s < FLAGS.scheduler_wait_for_host and any(host.life is Life.COMING for host in hosts)


def _bury(s: orm.Session, down: set[str]) -> None:
    """End what was to be terminated on a host that is dead; should it come back, it destroys the guest."""
    for instance in instances.in_state(s, instances.SHUTTING_DOWN):
        if instance.host in down:
            log.warning("instance %d: its host %s is down; counting it as terminated", instance.id, instance.host)
            for volume in volumes.of_instance(s, instance.id):
                volumes.release(s, volume.id)
            instances.move(s, instance.id, (instances.SHUTTING_DOWN,), instances.TERMINATED)


def _take_back(instance: instances.Instance, down: set[str]) -> bool:
    """Whether an instance is to be placed (again)."""
    if instance.task == instances.SCHEDULING:
        return instance.age_s >= FLAGS.scheduler_retry_after  # younger: its message is on the way
    if instance.host not in down:
        return False  # its host goes on with it
    log.warning("instance %d: its host %s is down; looking for another", instance.id, instance.host)
    instance.host, instance.task = None, instances.SCHEDULING
    return True


def _take_back_volume(volume: volumes.Volume, down: set[str]) -> bool:
    if volume.host is None:
        return volume.age_s >= FLAGS.scheduler_retry_after
    if volume.host not in down:
        return False
    volume.host = None
    return True
