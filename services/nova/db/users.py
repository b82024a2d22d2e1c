"""Users: who may ask, with which pair of keys, for which project."""

from __future__ import annotations

import secrets

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now


class User(Base):
    """One pair of keys. The secret is stored as it is, because SigV4 needs it to check a signature."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sqlalchemy.String(255), unique=True)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255))
    access_key: Mapped[str] = mapped_column(sqlalchemy.String(64), unique=True)
    secret_key: Mapped[str] = mapped_column(sqlalchemy.String(64))
    is_admin: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())


def create(
    s: orm.Session,
    name: str,
    project_id: str | None = None,
    access_key: str | None = None,
    is_admin: bool = False,
) -> User:
    """A user with a new secret. Raises `Duplicate` where the name or the access key is taken."""
    access_key = access_key or secrets.token_hex(10).upper()
    taken = s.scalar(select(User).where((User.name == name) | (User.access_key == access_key)))
    if taken is not None:
        what = f"user {name}" if taken.name == name else f"access key {access_key}"
        raise exception.Duplicate(f"there is a {what} already")
    user = User(
        name=name,
        project_id=project_id or name,
        access_key=access_key,
        secret_key=secrets.token_urlsafe(30),
        is_admin=is_admin,
    )
    s.add(user)
    s.flush()
    return user


def by_access_key(s: orm.Session, access_key: str) -> User | None:
    return s.scalar(select(User).where(User.access_key == access_key))


def get_all(s: orm.Session) -> list[User]:
    return list(s.scalars(select(User).order_by(User.name)))


def delete(s: orm.Session, name: str) -> None:
    """Raises `NotFound`."""
    if s.connection().execute(sqlalchemy.delete(User).where(User.name == name)).rowcount == 0:
        raise exception.NotFound(f"there is no user {name}")
