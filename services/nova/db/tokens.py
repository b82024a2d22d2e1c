"""Client tokens: a request that is repeated with the same token has its effect once.

The row is written in the transaction that does the work, so it exists exactly where the work was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.session import Base, now


class ClientToken(Base):
    """What a token of a project stands for."""

    __tablename__ = "client_tokens"

    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255), primary_key=True)
    action: Mapped[str] = mapped_column(sqlalchemy.String(64), primary_key=True)
    token: Mapped[str] = mapped_column(sqlalchemy.String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(sqlalchemy.String(64))
    result: Mapped[str] = mapped_column(sqlalchemy.String(64))
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())


class Mismatch(exception.Error):
    """A token was used before, for another request."""


def fingerprint(request: Mapping[str, object]) -> str:
    """The same for two requests that ask for the same."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def find(s: orm.Session, project_id: str, action: str, token: str, mark: str) -> str | None:
    """The result that a token stands for, None where it is new. Raises `Mismatch`."""
    found = s.get(ClientToken, (project_id, action, token))
    if found is None:
        return None
    if found.fingerprint != mark:
        raise Mismatch(f"the client token {token} was used with other parameters")
    return found.result


def keep(s: orm.Session, project_id: str, action: str, token: str, mark: str, result: str) -> None:
    s.add(ClientToken(project_id=project_id, action=action, token=token, fingerprint=mark, result=result))
    s.flush()
