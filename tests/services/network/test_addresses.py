"""Addresses: each to one instance at a time, the same however often it is asked for, and none lost."""

from __future__ import annotations

import ipaddress
from collections import Counter
from pathlib import Path

import pytest
from nova import exception, flags, green
from nova.context import get_admin_context
from nova.db import instances, networks, session
from nova.network.manager import NetworkManager

CONTEXT = get_admin_context()


@pytest.fixture
def network(state_path: Path) -> NetworkManager:
    manager = NetworkManager("host")
    with flags.FLAGS.override(fixed_range="10.1.0.0/24", floating_range="172.24.4.0/29"):
        manager.init_host()
    return manager


def make_instances(count: int) -> list[int]:
    with session.begin() as s:
        made = instances.create(
            s,
            count,
            reservation_id="r-1",
            project_id="p",
            user_id="u",
            image_id="ami-00000001",
            instance_type="m1.tiny",
            vcpus=1,
            memory_mb=1,
            disk_gb=0,
            security_groups=["default"],
        )
        return [item.id for item in made]


def held() -> dict[str, int]:
    """Address -> instance, by the database alone."""
    with session.read() as s:
        rows = s.query(networks.FixedIp).where(networks.FixedIp.instance_id.is_not(None))
        return {row.address: row.instance_id for row in rows}


def test_an_instance_has_one_address_however_often_it_asks(network: NetworkManager) -> None:
    (instance,) = make_instances(1)
    first = network.allocate_fixed_ip(CONTEXT, instance)
    assert network.allocate_fixed_ip(CONTEXT, instance_id=instance) == first
    assert held() == {first: instance}
    assert network.deallocate_fixed_ip(CONTEXT, instance) == first
    assert network.deallocate_fixed_ip(CONTEXT, instance) is None
    assert held() == {}


def test_fifty_at_once_get_fifty_addresses_and_give_all_back(network: NetworkManager) -> None:
    ids = make_instances(50)
    pool = green.GreenPool(50)
    addresses = list(pool.imap(lambda instance: network.allocate_fixed_ip(CONTEXT, instance), ids))
    assert len(set(addresses)) == 50
    assert held() == dict(zip(addresses, ids, strict=True))
    list(pool.imap(lambda instance: network.deallocate_fixed_ip(CONTEXT, instance), ids))
    assert held() == {}
    with session.read() as s:
        assert networks.free_count(s) == 253


def test_fifty_native_threads_on_one_database_neither_share_nor_lose(network: NetworkManager) -> None:
    """As many processes would: every thread has its own connection, and only the database between them."""
    ids = make_instances(50)
    url = session.database().url

    def allocate(instance: int) -> str:
        database = session.Database(url)
        try:
            with database.begin() as s:
                return networks.allocate_fixed(s, instance)
        finally:
            database.dispose()

    pool = green.GreenPool(50)
    addresses = list(pool.imap(lambda instance: green.tpool.execute(allocate, instance), ids))
    assert held() == dict(zip(addresses, ids, strict=True))
    assert max(Counter(addresses).values()) == 1


def test_nobody_gets_the_ends_or_the_gateway(network: NetworkManager) -> None:
    with session.begin() as s:
        networks.create(s, "tiny", "10.2.0.0/29")
    given = {network.allocate_fixed_ip(CONTEXT, instance) for instance in make_instances(258)}
    tiny = {address for address in given if ipaddress.ip_address(address) in ipaddress.ip_network("10.2.0.0/29")}
    assert tiny == {f"10.2.0.{last}" for last in range(2, 7)}
    (late,) = make_instances(1)
    with pytest.raises(exception.NoMoreAddresses):
        network.allocate_fixed_ip(CONTEXT, late)


def test_the_address_that_was_free_longest_comes_first(network: NetworkManager) -> None:
    first, second = make_instances(2)
    address = network.allocate_fixed_ip(CONTEXT, first)
    network.deallocate_fixed_ip(CONTEXT, first)
    assert network.allocate_fixed_ip(CONTEXT, second) != address


def test_what_is_gone_gets_no_address(network: NetworkManager) -> None:
    (instance,) = make_instances(1)
    with session.begin() as s:
        instances.move(s, instance, (instances.PENDING,), instances.TERMINATED)
    for absent in (instance, 4711):
        with pytest.raises(exception.NotFound):
            network.allocate_fixed_ip(CONTEXT, absent)


def test_the_reaper_takes_back_what_the_dead_hold_and_only_that(network: NetworkManager) -> None:
    dead, alive = make_instances(2)
    address = network.allocate_fixed_ip(CONTEXT, dead)
    kept = network.allocate_fixed_ip(CONTEXT, alive)
    with session.begin() as s:
        instances.move(s, dead, (instances.PENDING,), instances.ERROR)
    assert network.reap_addresses(CONTEXT) == []  # it may still be on its way to giving it back
    with flags.FLAGS.override(address_reap_after=-1.0):
        assert network.reap_addresses(CONTEXT) == [address]
    assert held() == {kept: alive}


def test_a_floating_address_follows_its_instance(network: NetworkManager) -> None:
    one, two = make_instances(2)
    address = network.allocate_floating_ip(CONTEXT, "p")
    network.associate_floating_ip(CONTEXT, address, one)
    network.associate_floating_ip(CONTEXT, address, two)
    with session.read() as s:
        assert networks.floating_of(s, [one, two]) == {two: address}
    network.deallocate_fixed_ip(CONTEXT, two)
    with session.read() as s:
        assert networks.floating_of(s, [one, two]) == {}
        assert networks.floating(s, "p", address).instance_id is None
        with pytest.raises(exception.NotFound):
            networks.floating(s, "other", address)
    network.release_floating_ip(CONTEXT, address)
    with session.read() as s, pytest.raises(exception.NotFound):
        networks.floating(s, None, address)


def test_floating_addresses_end(network: NetworkManager) -> None:
    given = {network.allocate_floating_ip(CONTEXT, "p") for _ in range(6)}
    assert len(given) == 6
    with pytest.raises(exception.NoMoreAddresses):
        network.allocate_floating_ip(CONTEXT, "p")


@pytest.mark.parametrize("cidr", ["10.1.0.0", "10.1.0.0/33", "10.1.0.1/24", "::/64", "10.0.0.0/8", "10.9.0.0/30"])
def test_a_network_that_is_none_or_too_large_or_small_is_refused(network: NetworkManager, cidr: str) -> None:
    with session.begin() as s, pytest.raises(exception.Invalid):
        networks.create(s, "x", cidr)


def test_networks_do_not_overlap(network: NetworkManager) -> None:
    with session.begin() as s, pytest.raises(exception.Duplicate):
        networks.create(s, "x", "10.1.0.128/25")


def test_a_second_start_makes_nothing_twice(network: NetworkManager) -> None:
    with flags.FLAGS.override(fixed_range="10.1.0.0/24", floating_range="172.24.4.0/29"):
        NetworkManager("other").init_host()
    with session.read() as s:
        assert [item.cidr for item in networks.get_all(s)] == ["10.1.0.0/24"]
        assert s.query(networks.FloatingIp).count() == 6
