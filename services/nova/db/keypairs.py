"""Key pairs: public keys by name; the private half is given out once and never kept."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now


class KeyPair(Base):
    __tablename__ = "key_pairs"
    __table_args__ = (sqlalchemy.UniqueConstraint("project_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255))
    name: Mapped[str] = mapped_column(sqlalchemy.String(255))
    kind: Mapped[str] = mapped_column(sqlalchemy.String(16))  # rsa or ed25519
    fingerprint: Mapped[str] = mapped_column(sqlalchemy.String(128))
    public_key: Mapped[str] = mapped_column(sqlalchemy.Text)
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())


def create(
    s: orm.Session, project_id: str, name: str, *, kind: str, fingerprint: str, public_key: str
) -> KeyPair:
    """Raises `Duplicate`."""
    if find(s, project_id, name):
        raise exception.Duplicate(f"there is a key pair {name} already")
    made = KeyPair(project_id=project_id, name=name, kind=kind, fingerprint=fingerprint, public_key=public_key)
    s.add(made)
    s.flush()
    return made


def find(s: orm.Session, project_id: str, name: str) -> KeyPair | None:
    return s.scalar(select(KeyPair).where(KeyPair.project_id == project_id, KeyPair.name == name))


def get_all(s: orm.Session, project_id: str) -> list[KeyPair]:
    return list(s.scalars(select(KeyPair).where(KeyPair.project_id == project_id).order_by(KeyPair.name)))


def delete(s: orm.Session, project_id: str, name: str) -> bool:
    """False where there was none."""
    found = find(s, project_id, name)
    if found:
        s.delete(found)
    return found is not None
