"""nova-network: gives addresses to instances and takes them back. Flat: one pool, no bridges, no DHCP.

All state is in the database and every method is one transaction, so it does not matter which network host
answers, how often it is asked, or where it is killed: an address is given or it is not. What an instance took
with it into its grave comes back by the reaper.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

from nova import exception, flags, manager
from nova.db import networks, session

log = logging.getLogger(__name__)

FLAGS = flags.FLAGS
flags.DEFINE_string("fixed_range", "10.0.0.0/24", "network that is made when there is none; empty for none")
flags.DEFINE_string("floating_range", "172.24.4.0/28", "addresses for AllocateAddress; empty for none")
flags.DEFINE_float(
    "address_reap_after",
    60.0,
    "seconds an address stays with an instance that is gone before it is taken back",
    least=0,
)


class NetworkManager(manager.Manager):
    """Nova's FlatManager."""

    def init_host(self) -> None:
        session.sync()
        with session.begin() as s:
            if FLAGS.fixed_range and not networks.get_all(s):
                networks.create(s, "default", FLAGS.fixed_range)
                log.info("made the network default %s", FLAGS.fixed_range)
            if FLAGS.floating_range:
                networks.add_floating(s, _hosts(FLAGS.floating_range))

    @manager.idempotent
    def allocate_fixed_ip(self, context: Any, instance_id: int) -> str:
        """The address of an instance. Raises `NotFound` where it is gone, `NoMoreAddresses`."""
        with session.begin() as s:
            return networks.allocate_fixed(s, instance_id)

    @manager.idempotent
    def deallocate_fixed_ip(self, context: Any, instance_id: int) -> str | None:
        """Take back what an instance has, and lead no floating address to it any more."""
        with session.begin() as s:
            return networks.deallocate_fixed(s, instance_id)

    def allocate_floating_ip(self, context: Any, project_id: str) -> str:
        """Raises `NoMoreAddresses`."""
        with session.begin() as s:
            return networks.allocate_floating(s, project_id)

    @manager.idempotent
    def associate_floating_ip(self, context: Any, address: str, instance_id: int) -> None:
        with session.begin() as s:
            networks.associate(s, address, instance_id)

    @manager.idempotent
    def disassociate_floating_ip(self, context: Any, address: str) -> None:
        with session.begin() as s:
            networks.disassociate(s, address)

    @manager.idempotent
    def release_floating_ip(self, context: Any, address: str) -> None:
        with session.begin() as s:
            networks.release_floating(s, address)

    @manager.periodic_task(spacing=30)
    def reap_addresses(self, context: Any) -> list[str]:
        """Take back the addresses of instances that are gone."""
        with session.begin() as s:
            freed = networks.reap(s, FLAGS.address_reap_after)
        if freed:
            log.warning("took back %s from instances that are gone", ", ".join(freed))
        return freed


def _hosts(cidr: str) -> list[str]:
    try:
        return [str(address) for address in ipaddress.IPv4Network(cidr).hosts()]
    except ValueError as error:
        raise exception.FlagError(f"--floating_range {cidr!r}: {error}") from None
