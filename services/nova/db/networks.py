"""Networks and their addresses: which instance has which.

An address belongs to the instance whose id is in its row and to nobody where that is NULL; the column is
unique, so an instance has one fixed address, however often and from wherever it is asked for. Taking one is a
single UPDATE.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import orm, select, update
from sqlalchemy.orm import Mapped, mapped_column

from nova import exception
from nova.db.instances import GONE, Instance
from nova.db.session import Base, now


class Network(Base):
    """A flat IPv4 network."""

    __tablename__ = "networks"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(sqlalchemy.String(255))
    cidr: Mapped[str] = mapped_column(sqlalchemy.String(32), unique=True)
    gateway: Mapped[str] = mapped_column(sqlalchemy.String(32))


class FixedIp(Base):
    """An address of a network, given to an instance for its life."""

    __tablename__ = "fixed_ips"

    id: Mapped[int] = mapped_column(primary_key=True)
    network_id: Mapped[int] = mapped_column(sqlalchemy.ForeignKey("networks.id"), index=True)
    address: Mapped[str] = mapped_column(sqlalchemy.String(32), unique=True)
    instance_id: Mapped[int | None] = mapped_column(unique=True)
    is_reserved: Mapped[bool] = mapped_column(default=False)
    changed_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=0.0)


class FloatingIp(Base):
    """An address that a project holds and moves between its instances."""

    __tablename__ = "floating_ips"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(sqlalchemy.String(32), unique=True)
    project_id: Mapped[str | None] = mapped_column(sqlalchemy.String(255), index=True)
    instance_id: Mapped[int | None] = mapped_column(index=True)
    changed_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=0.0)


def create(s: orm.Session, label: str, cidr: str) -> Network:
    """A network and a row for every address of it. Raises `Invalid`, `Duplicate`."""
    try:
        net = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise exception.Invalid(f"{cidr!r} is not a network: {error}") from None
    if not 16 <= net.prefixlen <= 29:
        raise exception.Invalid(f"{cidr}: a network is between /16 and /29")
    for other in get_all(s):
        if net.overlaps(ipaddress.IPv4Network(other.cidr)):
            raise exception.Duplicate(f"{cidr} overlaps the network {other.label} {other.cidr}")
    network = Network(label=label, cidr=str(net), gateway=str(net[1]))
    s.add(network)
    s.flush()
    # The network's own address, the gateway and the broadcast address are nobody's.
    reserved = {net[0], net[1], net[-1]}
    rows = [
        {"network_id": network.id, "address": str(address), "is_reserved": address in reserved} for address in net
    ]
    s.execute(sqlalchemy.insert(FixedIp), rows)
    return network


def get_all(s: orm.Session) -> list[Network]:
    return list(s.scalars(select(Network).order_by(Network.id)))


def free_count(s: orm.Session) -> int:
    query = select(sqlalchemy.func.count()).where(FixedIp.instance_id.is_(None), ~FixedIp.is_reserved)
    return s.scalar(query) or 0


def usage(s: orm.Session) -> list[dict[str, Any]]:
    """One row a network: its label, CIDR, gateway, and how many addresses are used and free."""
    used = sqlalchemy.func.count(FixedIp.instance_id)
    free = sqlalchemy.func.count().filter(FixedIp.instance_id.is_(None), ~FixedIp.is_reserved)
    query = select(Network, used, free).join(FixedIp, FixedIp.network_id == Network.id)
    return [
        {"label": net.label, "cidr": net.cidr, "gateway": net.gateway, "used": taken, "free": left}
        for net, taken, left in s.execute(query.group_by(Network.id).order_by(Network.id))
    ]


def fixed_of(s: orm.Session, instance_ids: Collection[int]) -> dict[int, str]:
    """Instance -> its fixed address, for those that have one."""
    query = select(FixedIp.instance_id, FixedIp.address).where(FixedIp.instance_id.in_(instance_ids))
    return {int(instance_id): address for instance_id, address in s.execute(query) if instance_id is not None}


def allocate_fixed(s: orm.Session, instance_id: int) -> str:
    """The instance's address, a new one where it has none; the one that was free longest comes first.

    Raises `NotFound` where the instance is gone, `NoMoreAddresses`.
    """
    instance = s.get(Instance, instance_id, with_for_update=True, populate_existing=True)
    if instance is None or instance.is_gone:
        raise exception.NotFound(f"instance {instance_id} is gone; it needs no address")
    held = fixed_of(s, [instance_id]).get(instance_id)
    if held:
        return held
    free = (
        select(FixedIp.id)
        .where(FixedIp.instance_id.is_(None), ~FixedIp.is_reserved)
        .order_by(FixedIp.changed_at, FixedIp.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = (
        update(FixedIp)
        .where(FixedIp.id == free, FixedIp.instance_id.is_(None))
        .values(instance_id=instance_id, changed_at=now())
        .returning(FixedIp.address)
        .execution_options(synchronize_session=False)
    )
    address = s.scalar(taken)
    if address is None:
        raise exception.NoMoreAddresses(
            "every address of every network is in use; add a network or terminate instances"
        )
    return address


def deallocate_fixed(s: orm.Session, instance_id: int) -> str | None:
    """Take the addresses of an instance back; returns the fixed one, None where it had none."""
    held = fixed_of(s, [instance_id]).get(instance_id)
    for table in (FixedIp, FloatingIp):
        _execute(
            s, update(table).where(table.instance_id == instance_id).values(instance_id=None, changed_at=now())
        )
    return held


def reap(s: orm.Session, grace_s: float) -> list[str]:
    """Take back what instances that are gone still hold, and have held for `grace_s`; returns the addresses."""
    alive = select(Instance.id).where(Instance.state.not_in(GONE))
    freed: list[str] = []
    for table in (FixedIp, FloatingIp):
        lost = (
            update(table)
            .where(
                table.instance_id.is_not(None),
                table.instance_id.not_in(alive),
                now() - table.changed_at > grace_s,
            )
            .values(instance_id=None, changed_at=now())
            .returning(table.address)
            .execution_options(synchronize_session=False)
        )
        freed += s.scalars(lost)
    return freed


def add_floating(s: orm.Session, addresses: Sequence[str]) -> int:
    """Make addresses available to projects; returns how many are new."""
    known = set(s.scalars(select(FloatingIp.address)))
    new = [address for address in addresses if address not in known]
    if new:
        s.execute(sqlalchemy.insert(FloatingIp), [{"address": address} for address in new])
    return len(new)


def allocate_floating(s: orm.Session, project_id: str) -> str:
    """Raises `NoMoreAddresses`."""
    free = (
        select(FloatingIp.id)
        .where(FloatingIp.project_id.is_(None))
        .order_by(FloatingIp.changed_at, FloatingIp.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = (
        update(FloatingIp)
        .where(FloatingIp.id == free, FloatingIp.project_id.is_(None))
        .values(project_id=project_id, changed_at=now())
        .returning(FloatingIp.address)
        .execution_options(synchronize_session=False)
    )
    address = s.scalar(taken)
    if address is None:
        raise exception.NoMoreAddresses("every floating address is in use")
    return address


def floating(s: orm.Session, project_id: str | None, address: str) -> FloatingIp:
    """An address that the project holds, anybody's where None. Raises `NotFound`."""
    query = select(FloatingIp).where(FloatingIp.address == address, FloatingIp.project_id.is_not(None))
    found = s.scalar(query.with_for_update())
    if found is None or (project_id is not None and found.project_id != project_id):
        raise exception.NotFound(f"the address {address} is not allocated to you")
    return found


def floating_all(s: orm.Session, project_id: str | None) -> list[FloatingIp]:
    query = select(FloatingIp).where(FloatingIp.project_id.is_not(None)).order_by(FloatingIp.id)
    if project_id is not None:
        query = query.where(FloatingIp.project_id == project_id)
    return list(s.scalars(query))


def floating_of(s: orm.Session, instance_ids: Collection[int]) -> dict[int, str]:
    """Instance -> the floating address that leads to it."""
    query = select(FloatingIp.instance_id, FloatingIp.address).where(FloatingIp.instance_id.in_(instance_ids))
    return {int(instance_id): address for instance_id, address in s.execute(query) if instance_id is not None}


def associate(s: orm.Session, address: str, instance_id: int) -> None:
    """Lead a floating address to an instance, and away from where it led; any other one of the instance ends."""
    _execute(s, update(FloatingIp).where(FloatingIp.instance_id == instance_id).values(instance_id=None))
    changed = update(FloatingIp).where(FloatingIp.address == address)
    _execute(s, changed.values(instance_id=instance_id, changed_at=now()))


def disassociate(s: orm.Session, address: str) -> None:
    _execute(
        s, update(FloatingIp).where(FloatingIp.address == address).values(instance_id=None, changed_at=now())
    )


def release_floating(s: orm.Session, address: str) -> None:
    changed = update(FloatingIp).where(FloatingIp.address == address)
    _execute(s, changed.values(project_id=None, instance_id=None, changed_at=now()))


def _execute(s: orm.Session, statement: sqlalchemy.Update) -> None:
    s.execute(statement.execution_options(synchronize_session=False))
