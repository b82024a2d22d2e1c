"""Tags: a word and its value on any resource of EC2."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova.db.session import Base


class Tag(Base):
    """`resource_id` is EC2's: i-..., vol-..., ami-..., sg-..."""

    __tablename__ = "tags"

    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255), primary_key=True)
    resource_id: Mapped[str] = mapped_column(sqlalchemy.String(32), primary_key=True)
    key: Mapped[str] = mapped_column(sqlalchemy.String(128), primary_key=True)
    value: Mapped[str] = mapped_column(sqlalchemy.String(256))


def put(s: orm.Session, project_id: str, resource_id: str, key: str, value: str) -> None:
    s.merge(Tag(project_id=project_id, resource_id=resource_id, key=key, value=value))


def remove(s: orm.Session, project_id: str, resource_id: str, key: str | None, value: str | None) -> None:
    """Remove a tag; with a value only if it has that one; without a key all of the resource."""
    query = sqlalchemy.delete(Tag).where(Tag.project_id == project_id, Tag.resource_id == resource_id)
    if key is not None:
        query = query.where(Tag.key == key)
    if value is not None:
        query = query.where(Tag.value == value)
    s.execute(query)


def get_all(s: orm.Session, project_id: str) -> list[Tag]:
    query = select(Tag).where(Tag.project_id == project_id)
    return list(s.scalars(query.order_by(Tag.resource_id, Tag.key)))


def of(s: orm.Session, resource_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Resource -> its tags."""
    found: dict[str, dict[str, str]] = {}
    for tag in s.scalars(select(Tag).where(Tag.resource_id.in_(resource_ids)).order_by(Tag.key)):
        found.setdefault(tag.resource_id, {})[tag.key] = tag.value
    return found
