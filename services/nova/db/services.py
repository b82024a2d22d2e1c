"""The `services` table: which service runs where, and when it was last alive.

`last_seen_up` is written and compared with the database's clock, so clocks of hosts may differ; `updated_at`
changes for any reason and says nothing about life. A row also carries the consumer's progress and the lag of the
hub: a process whose heart beats while its work stands still can be told from a healthy one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import select
from sqlalchemy.orm import Mapped, column_property, mapped_column

from nova import exception
from nova.db import session
from nova.db.session import Base, now


class Service(Base):
    """One service on one host. `age_s` is the time since its last heartbeat when the row was read."""

    __tablename__ = "services"
    __table_args__ = (sqlalchemy.UniqueConstraint("host", "binary"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(sqlalchemy.String(255))
    binary: Mapped[str] = mapped_column(sqlalchemy.String(255))
    topic: Mapped[str] = mapped_column(sqlalchemy.String(255), index=True)
    report_count: Mapped[int] = mapped_column(default=0)
    disabled: Mapped[bool] = mapped_column(default=False)
    availability_zone: Mapped[str] = mapped_column(sqlalchemy.String(255), default="nova")
    state: Mapped[str] = mapped_column(sqlalchemy.String(16), default="starting")
    progress: Mapped[int] = mapped_column(default=0)
    inflight: Mapped[int] = mapped_column(default=0)
    hub_lag_ms: Mapped[float] = mapped_column(default=0.0)
    last_seen_up: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())
    created_at: Mapped[datetime] = mapped_column(server_default=sqlalchemy.func.now())
    updated_at: Mapped[datetime | None] = mapped_column(onupdate=sqlalchemy.func.now())
    age_s: Mapped[float] = column_property(now() - last_seen_up)


def get_all(topic: str | None = None) -> list[Service]:
    """All services, or those of a topic, by host and binary."""
    query = select(Service).order_by(Service.binary, Service.host)
    if topic is not None:
        query = query.where(Service.topic == topic)
    with session.read() as s:
        return list(s.scalars(query))


def get_by_args(host: str, binary: str) -> Service:
    """The service of a binary on a host. Raises `NotFound`."""
    with session.read() as s:
        found = s.scalar(select(Service).where(Service.host == host, Service.binary == binary))
    if found is None:
        raise exception.NotFound(f"no service {binary} on {host}")
    return found


def report(host: str, binary: str, topic: str, **values: Any) -> None:
    """A heartbeat: the row is seen now, with `values`; a row that is missing is created."""
    seen = {**values, "topic": topic, "last_seen_up": now(), "report_count": Service.report_count + 1}
    mine = (Service.host == host, Service.binary == binary)
    with session.begin() as s:
        if s.connection().execute(sqlalchemy.update(Service).where(*mine).values(**seen)).rowcount == 0:
            s.add(Service(host=host, binary=binary, topic=topic, **values))


def set_disabled(host: str, binary: str, disabled: bool) -> None:
    """Take a service out of scheduling, or back in. Raises `NotFound`."""
    query = sqlalchemy.update(Service).where(Service.host == host, Service.binary == binary)
    with session.begin() as s:
        if s.connection().execute(query.values(disabled=disabled)).rowcount == 0:
            raise exception.NotFound(f"no service {binary} on {host}")


def destroy(host: str, binary: str) -> None:
    """Remove the row of a service that will not come back; one that is absent is fine."""
    with session.begin() as s:
        s.execute(sqlalchemy.delete(Service).where(Service.host == host, Service.binary == binary))
