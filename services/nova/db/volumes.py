"""Volumes: how large, where the bytes are, and which instance uses them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now

CREATING = "creating"
AVAILABLE = "available"
ATTACHING = "attaching"  # EC2 shows in-use, with the attachment attaching
IN_USE = "in-use"
DETACHING = "detaching"  # EC2 shows in-use, with the attachment detaching
DELETING = "deleting"
DELETED = "deleted"
ERROR = "error"


class Volume(Base):
    """A block device. Times are seconds since 1970 by the database's clock."""

    __tablename__ = "volumes"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255), index=True)
    user_id: Mapped[str] = mapped_column(sqlalchemy.String(255))
    size_gb: Mapped[int]
    availability_zone: Mapped[str] = mapped_column(sqlalchemy.String(255))
    host: Mapped[str | None] = mapped_column(sqlalchemy.String(255), index=True)
    status: Mapped[str] = mapped_column(sqlalchemy.String(16), default=CREATING, index=True)
    reason: Mapped[str] = mapped_column(sqlalchemy.Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    instance_id: Mapped[int | None] = mapped_column(index=True)
    device: Mapped[str | None] = mapped_column(sqlalchemy.String(64))
    attached_at: Mapped[float | None] = mapped_column(sqlalchemy.Float)
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())
    updated_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now(), onupdate=now())
    age_s: Mapped[float] = orm.column_property(now() - updated_at)


def create(s: orm.Session, **values: Any) -> Volume:
    made = Volume(**values)
    s.add(made)
    s.flush()
    return made


def get(s: orm.Session, volume_id: int, project_id: str | None = None) -> Volume:
    """Raises `NotFound`; a deleted volume is not found."""
    found = s.get(Volume, volume_id)
    foreign = found is not None and project_id is not None and found.project_id != project_id
    if found is None or foreign or found.status == DELETED:
        raise exception.NotFound(f"there is no volume {volume_id}")
    return found


def visible(s: orm.Session, project_id: str | None, ids: Collection[int] = ()) -> list[Volume]:
    query = select(Volume).where(Volume.status != DELETED).order_by(Volume.id)
    if project_id is not None:
        query = query.where(Volume.project_id == project_id)
    if ids:
        query = query.where(Volume.id.in_(ids))
    return list(s.scalars(query))


def of_instance(s: orm.Session, instance_id: int) -> list[Volume]:
    return list(s.scalars(select(Volume).where(Volume.instance_id == instance_id).order_by(Volume.id)))


def in_status(s: orm.Session, *statuses: str, host: str | None = None) -> list[Volume]:
    query = select(Volume).where(Volume.status.in_(statuses)).order_by(Volume.id)
    if host is not None:
        query = query.where(Volume.host == host)
    return list(s.scalars(query))


def load(s: orm.Session) -> dict[str, tuple[int, int]]:
    """Host -> (volumes, gigabytes) on it."""
    query = (
        select(Volume.host, sqlalchemy.func.count(), sqlalchemy.func.sum(Volume.size_gb))
        .where(Volume.host.is_not(None), Volume.status.not_in((DELETED, ERROR)))
        .group_by(Volume.host)
    )
    return {str(host): (count, int(size)) for host, count, size in s.execute(query)}


def locked(s: orm.Session, volume_id: int) -> Volume | None:
    """The row, kept from everybody else until the transaction ends."""
    return s.get(Volume, volume_id, with_for_update=True, populate_existing=True)


def move(s: orm.Session, volume_id: int, old: Collection[str], new: str, **values: Any) -> Volume | None:
    """Change the status if it is one of `old`; returns the row, or None where it was not and nothing changed."""
    found = locked(s, volume_id)
    if found is None or found.status not in old:
        return None
    found.status = new
    for name, value in values.items():
        setattr(found, name, value)
    s.flush()
    s.refresh(found)  # times are the database's
    return found


def release(s: orm.Session, volume_id: int) -> Volume | None:
    """Take a volume off whatever instance has it."""
    return move(
        s, volume_id, (ATTACHING, IN_USE, DETACHING), AVAILABLE, instance_id=None, device=None, attached_at=None
    )
