"""Security groups and their rules."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now

DEFAULT = "default"


class SecurityGroup(Base):
    __tablename__ = "security_groups"
    __table_args__ = (sqlalchemy.UniqueConstraint("project_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255))
    name: Mapped[str] = mapped_column(sqlalchemy.String(255))
    description: Mapped[str] = mapped_column(sqlalchemy.String(255))
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())
    rules: Mapped[list[Rule]] = orm.relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by="Rule.id"
    )


class Rule(Base):
    """What may come in: a protocol and ports, from a network or from members of another group of the project."""

    __tablename__ = "security_group_rules"

    id: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[int] = mapped_column(sqlalchemy.ForeignKey("security_groups.id"), index=True)
    protocol: Mapped[str] = mapped_column(sqlalchemy.String(8))
    from_port: Mapped[int | None]
    to_port: Mapped[int | None]
    cidr: Mapped[str | None] = mapped_column(sqlalchemy.String(64))
    source_group: Mapped[str | None] = mapped_column(sqlalchemy.String(255))

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.protocol, self.from_port, self.to_port, self.cidr, self.source_group)


def create(s: orm.Session, project_id: str, name: str, description: str) -> SecurityGroup:
    """Raises `Duplicate`."""
    if find(s, project_id, name):
        raise exception.Duplicate(f"there is a security group {name} already")
    made = SecurityGroup(project_id=project_id, name=name, description=description, rules=[])
    s.add(made)
    s.flush()
    return made


def find(s: orm.Session, project_id: str, name: str) -> SecurityGroup | None:
    return s.scalar(
        select(SecurityGroup).where(SecurityGroup.project_id == project_id, SecurityGroup.name == name)
    )


def get(s: orm.Session, project_id: str, group_id: int) -> SecurityGroup | None:
    found = s.get(SecurityGroup, group_id)
    return found if found and found.project_id == project_id else None


def ensure_default(s: orm.Session, project_id: str) -> SecurityGroup:
    """The group that every project has."""
    return find(s, project_id, DEFAULT) or create(s, project_id, DEFAULT, "default group")


def get_all(s: orm.Session, project_id: str) -> list[SecurityGroup]:
    query = select(SecurityGroup).where(SecurityGroup.project_id == project_id)
    return list(s.scalars(query.order_by(SecurityGroup.name)))
