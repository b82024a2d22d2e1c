"""Instances: what was asked for, where it runs, and which step of its life it is in.

`state` is what EC2 shows; `task` is the step that is under way, None where nothing is. Every change of either
is one function here that says from which states it may happen, so two services cannot both believe that they
did it. Rows are locked while they change (`FOR UPDATE`; SQLite has one writer anyway).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now

PENDING = "pending"
RUNNING = "running"
SHUTTING_DOWN = "shutting-down"
TERMINATED = "terminated"
STOPPING = "stopping"
STOPPED = "stopped"
ERROR = "error"  # EC2 shows it as terminated, with the reason

SCHEDULING = "scheduling"  # nobody has chosen a host
SCHEDULED = "scheduled"  # a host was chosen and told
BUILDING = "building"  # the host has begun
STARTING = "starting"
REBOOTING = "rebooting"
DELETING = "deleting"

GONE = (TERMINATED, ERROR)
VISIBLE_S = 3600.0  # EC2: terminated instances "remain visible for approximately one hour"


class Instance(Base):
    """One virtual machine. Times are seconds since 1970 by the database's clock."""

    __tablename__ = "instances"

    id: Mapped[int] = mapped_column(primary_key=True)
    reservation_id: Mapped[str] = mapped_column(sqlalchemy.String(32), index=True)
    launch_index: Mapped[int] = mapped_column(default=0)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255), index=True)
    user_id: Mapped[str] = mapped_column(sqlalchemy.String(255))
    image_id: Mapped[str] = mapped_column(sqlalchemy.String(32))
    instance_type: Mapped[str] = mapped_column(sqlalchemy.String(64))
    vcpus: Mapped[int]
    memory_mb: Mapped[int]
    disk_gb: Mapped[int]
    key_name: Mapped[str | None] = mapped_column(sqlalchemy.String(255))
    security_groups: Mapped[list[str]] = mapped_column(sqlalchemy.JSON)
    user_data: Mapped[str | None] = mapped_column(sqlalchemy.Text)  # base64, as it came
    client_token: Mapped[str | None] = mapped_column(sqlalchemy.String(64))
    availability_zone: Mapped[str | None] = mapped_column(sqlalchemy.String(255))
    host: Mapped[str | None] = mapped_column(sqlalchemy.String(255), index=True)
    state: Mapped[str] = mapped_column(sqlalchemy.String(16), default=PENDING, index=True)
    task: Mapped[str | None] = mapped_column(sqlalchemy.String(16), default=SCHEDULING)
    reason: Mapped[str] = mapped_column(sqlalchemy.Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())
    updated_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now(), onupdate=now())
    launched_at: Mapped[float | None] = mapped_column(sqlalchemy.Float)
    terminated_at: Mapped[float | None] = mapped_column(sqlalchemy.Float)
    age_s: Mapped[float] = orm.column_property(now() - updated_at)

    @property
    def is_gone(self) -> bool:
        return self.state in GONE


def create(s: orm.Session, count: int, **values: Any) -> list[Instance]:
    """`count` instances of one reservation, waiting for a scheduler."""
    made = [Instance(launch_index=index, **values) for index in range(count)]
    s.add_all(made)
    s.flush()
    return made


def get(s: orm.Session, instance_id: int, project_id: str | None = None) -> Instance:
    """Raises `NotFound`; with a project, also for an instance of another one or one no longer visible."""
    found = s.get(Instance, instance_id)
    if found is None or (project_id is not None and found.project_id != project_id):
        raise exception.NotFound(f"there is no instance {instance_id}")
    return found


def visible(s: orm.Session, project_id: str | None, ids: Collection[int] = ()) -> list[Instance]:
    """What a project sees (None: all projects): everything that lives, and what ended in the last hour."""
    query = select(Instance).order_by(Instance.id)
    query = query.where(
        Instance.state.not_in(GONE)
        | (Instance.terminated_at.is_(None))
        | (now() - Instance.terminated_at < VISIBLE_S)
    )
    if project_id is not None:
        query = query.where(Instance.project_id == project_id)
    if ids:
        query = query.where(Instance.id.in_(ids))
    return list(s.scalars(query))


def on_host(s: orm.Session, host: str) -> list[Instance]:
    return list(s.scalars(select(Instance).where(Instance.host == host).order_by(Instance.id)))


def waiting(s: orm.Session) -> list[Instance]:
    """What no host runs yet, longest waiting first."""
    query = select(Instance).where(
        Instance.state == PENDING, Instance.task.in_((SCHEDULING, SCHEDULED, BUILDING))
    )
    return list(s.scalars(query.order_by(Instance.updated_at, Instance.id)))


def in_state(s: orm.Session, state: str) -> list[Instance]:
    return list(s.scalars(select(Instance).where(Instance.state == state).order_by(Instance.id)))


def by_reservation(s: orm.Session, reservation_id: str) -> list[Instance]:
    query = select(Instance).where(Instance.reservation_id == reservation_id)
    return list(s.scalars(query.order_by(Instance.launch_index)))


def count_alive(s: orm.Session, project_id: str) -> int:
    query = select(sqlalchemy.func.count()).where(Instance.project_id == project_id, Instance.state.not_in(GONE))
    return s.scalar(query) or 0


def load(s: orm.Session) -> dict[str, tuple[int, int]]:
    """Host -> (instances, vcpus) that count against it."""
    query = (
        select(Instance.host, sqlalchemy.func.count(), sqlalchemy.func.sum(Instance.vcpus))
        .where(Instance.host.is_not(None), Instance.state.not_in(GONE))
        .group_by(Instance.host)
    )
    return {str(host): (count, int(vcpus)) for host, count, vcpus in s.execute(query)}


def locked(s: orm.Session, instance_id: int) -> Instance | None:
    """The row, kept from everybody else until the transaction ends."""
    return s.get(Instance, instance_id, with_for_update=True, populate_existing=True)


def move(s: orm.Session, instance_id: int, old: Collection[str], new: str, **values: Any) -> Instance | None:
    """Change the state if it is one of `old`; returns the row, or None where it was not and nothing changed."""
    found = locked(s, instance_id)
    if found is None or found.state not in old:
        return None
    found.state = new
    for name, value in values.items():
        setattr(found, name, value)
    if new in GONE:
        found.task, found.terminated_at = None, now()
    s.flush()
    s.refresh(found)  # times are the database's
    return found
