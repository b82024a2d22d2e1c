"""Elastic addresses. nova-network owns them: every change is a call to it, what is shown is read from the tables."""

from __future__ import annotations

import ipaddress

from nova import exception, flags
from nova.api import errors, filters, ids
from nova.api.call import CALL_TIMEOUT_S, DONE, Call, Reply, items
from nova.api.errors import Ec2Error
from nova.db import instances, networks, session
from nova.db.networks import FloatingIp

FLAGS = flags.FLAGS
flags.DEFINE_integer("quota_floating_ips", 10, "elastic addresses that a project may hold", least=0)

FILTERS = {
    "public-ip": filters.field("publicIp"),
    "allocation-id": filters.field("allocationId"),
    "association-id": filters.field("associationId"),
    "instance-id": filters.field("instanceId"),
    "private-ip-address": filters.field("privateIpAddress"),
    "domain": filters.field("domain"),
}


def allocate_address(call: Call) -> Reply:
    with session.read() as s:
        held = len(networks.floating_all(s, call.project_id))
    if held >= FLAGS.quota_floating_ips:
        raise Ec2Error("AddressLimitExceeded", f"a project may hold {FLAGS.quota_floating_ips} addresses")
    try:
        address = _network(call, "allocate_floating_ip", project_id=call.project_id)
    except exception.NoMoreAddresses as error:
        raise Ec2Error("InsufficientAddressCapacity", str(error)) from None
    return {"publicIp": address, "domain": "vpc", "allocationId": _allocation_id(address)}


def release_address(call: Call) -> Reply:
    found = _held(call)
    if found.instance_id is not None:
        raise Ec2Error("InvalidIPAddress.InUse", f"{found.address} leads to {ids.of('i', found.instance_id)}")
    _network(call, "release_floating_ip", address=found.address)
    return DONE


def associate_address(call: Call) -> Reply:
    found = _held(call)
    text = call.params.required("InstanceId")
    number = ids.parse("i", text)
    with session.read() as s:
        try:
            instance = instances.get(s, number, call.project_id)
        except exception.NotFound:
            raise ids.not_found("i", text) from None
    if instance.state not in (instances.RUNNING, instances.STOPPED, instances.PENDING):
        raise Ec2Error("IncorrectInstanceState", f"{text} is {instance.state}")
    if found.instance_id not in (None, number) and not call.params.flag("AllowReassociation", True):
        raise Ec2Error("Resource.AlreadyAssociated", f"{found.address} leads to another instance")
    _network(call, "associate_floating_ip", address=found.address, instance_id=number)
    return {"return": True, "associationId": _association_id(found.address)}


def disassociate_address(call: Call) -> Reply:
    found = _held(call, association=True)
    _network(call, "disassociate_floating_ip", address=found.address)
    return DONE


def describe_addresses(call: Call) -> Reply:
    addresses = call.params.texts("PublicIp")
    allocations = call.params.texts("AllocationId")
    with session.read() as s:
        found = networks.floating_all(s, call.project_id)
        fixed = networks.fixed_of(s, [item.instance_id for item in found if item.instance_id is not None])
    for text in [text for text in addresses if text not in {item.address for item in found}]:
        raise Ec2Error("InvalidAddress.NotFound", f"the address {text} is not yours")
    for text in [text for text in allocations if text not in {_allocation_id(item.address) for item in found}]:
        raise Ec2Error("InvalidAllocationID.NotFound", f"there is no allocation {text}")
    views = [
        _view(item, fixed)
        for item in found
        if not (addresses or allocations)
        or item.address in addresses
        or _allocation_id(item.address) in allocations
    ]
    return {"addressesSet": items(filters.apply(call.params, views, FILTERS, lambda view: view))}


def _network(call: Call, method: str, **args: object) -> str:
    result: str = call.client(FLAGS.network_topic, timeout=CALL_TIMEOUT_S).call(call.context, method, **args)
    return result


def _held(call: Call, association: bool = False) -> FloatingIp:
    """The address that the request is about, named by itself or by one of its ids."""
    text = call.params.text("PublicIp")
    name, prefix = ("AssociationId", "eipassoc") if association else ("AllocationId", "eipalloc")
    number = call.params.text(name)
    if number:
        text = _address_of(number, prefix)
    if not text:
        raise errors.missing(name)
    try:
        with session.read() as s:
            return networks.floating(s, call.project_id, text)
    except exception.NotFound as error:
        code = f"Invalid{name.removesuffix('Id')}ID.NotFound" if number else "InvalidAddress.NotFound"
        raise Ec2Error(code, str(error)) from None


# The ids say the address in hexadecimal, so they need no table.


def _allocation_id(address: str) -> str:
    return f"eipalloc-{int(ipaddress.IPv4Address(address)):08x}"


def _association_id(address: str) -> str:
    return f"eipassoc-{int(ipaddress.IPv4Address(address)):08x}"


def _address_of(text: str, prefix: str) -> str:
    kind, _, number = text.partition("-")
    try:
        if kind == prefix:
            return str(ipaddress.IPv4Address(int(number, 16)))
    except ValueError:
        pass
    raise Ec2Error("InvalidParameterValue", f"{text[:80]!r} is not an id like {prefix}-ac180401")


def _view(item: FloatingIp, fixed: dict[int, str]) -> Reply:
    view = {"publicIp": item.address, "domain": "vpc", "allocationId": _allocation_id(item.address)}
    if item.instance_id is None:
        return view
    return {
        **view,
        "instanceId": ids.of("i", item.instance_id),
        "associationId": _association_id(item.address),
        "privateIpAddress": fixed.get(item.instance_id),
    }
