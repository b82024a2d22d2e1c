"""Instances: what they look like to EC2, and the actions on those that exist."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import orm

from nova import flags, rpc
from nova.api import errors, filters, ids
from nova.api.call import CALL_TIMEOUT_S, Call, Reply, items, moment, tag_set
from nova.api.errors import Ec2Error
from nova.api.told import tell
from nova.db import groups, networks, session, tags, volumes
from nova.db import instances as db
from nova.db.instances import Instance
from nova.db.volumes import Volume

FLAGS = flags.FLAGS

# EC2's codes; only the low byte means something.
CODES = {
    db.PENDING: 0,
    db.RUNNING: 16,
    db.SHUTTING_DOWN: 32,
    db.TERMINATED: 48,
    db.STOPPING: 64,
    db.STOPPED: 80,
}

FILTERS = {
    "instance-id": filters.field("instanceId"),
    "image-id": filters.field("imageId"),
    "instance-type": filters.field("instanceType"),
    "instance-state-name": filters.field("instanceState", "name"),
    "instance-state-code": filters.field("instanceState", "code"),
    "key-name": filters.field("keyName"),
    "launch-index": filters.field("amiLaunchIndex"),
    "private-ip-address": filters.field("privateIpAddress"),
    "ip-address": filters.field("ipAddress"),
    "availability-zone": filters.field("placement", "availabilityZone"),
    "client-token": filters.field("clientToken"),
    "group-name": filters.field("groupSet", "item", "groupName"),
    "instance.group-name": filters.field("groupSet", "item", "groupName"),
    "reservation-id": filters.field("_reservationId"),
    "owner-id": filters.field("_ownerId"),
}
_STATUS_FILTERS = {
    "instance-state-name": filters.field("instanceState", "name"),
    "instance-state-code": filters.field("instanceState", "code"),
    "availability-zone": filters.field("availabilityZone"),
}


@dataclass(frozen=True)
class Surroundings:
    """What other tables know about some instances, each by instance id."""

    fixed: dict[int, str] = field(default_factory=dict)
    floating: dict[int, str] = field(default_factory=dict)
    attached: dict[int, list[Volume]] = field(default_factory=dict)
    tagged: dict[str, dict[str, str]] = field(default_factory=dict)
    group_ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, s: orm.Session, project_id: str, found: Collection[Instance]) -> Surroundings:
        numbers = [instance.id for instance in found]
        attached: dict[int, list[Volume]] = {}
        for volume in volumes.visible(s, project_id):
            if volume.instance_id is not None:
                attached.setdefault(volume.instance_id, []).append(volume)
        return cls(
            fixed=networks.fixed_of(s, numbers),
            floating=networks.floating_of(s, numbers),
            attached=attached,
            tagged=tags.of(s, [ids.of("i", number) for number in numbers]),
            group_ids={group.name: group.id for group in groups.get_all(s, project_id)},
        )


def describe_instances(call: Call) -> Reply:
    texts = call.params.texts("InstanceId")
    found, around = _visible(call, texts)
    rows = [(instance, view(instance, around)) for instance in found]
    matching = filters.apply(call.params, rows, FILTERS, lambda row: row[1])
    shown, token = filters.page(call.params, matching, lambda row: row[0].id, bool(texts))
    together = groupby(
        sorted(shown, key=lambda row: (row[0].reservation_id, row[0].id)), key=lambda row: row[0].reservation_id
    )
    reservations = [_reservation([instance for instance, _ in part], around) for _, part in together]
    reservations.sort(key=lambda item: item["instancesSet"]["item"][0]["instanceId"])
    return {"reservationSet": items(reservations), "nextToken": token}


def describe_instance_status(call: Call) -> Reply:
    """Running instances only, unless IncludeAllInstances."""
    texts = call.params.texts("InstanceId")
    found, _ = _visible(call, texts)
    everything = call.params.flag("IncludeAllInstances")
    rows = [(item, _status_view(item)) for item in found if everything or item.state == db.RUNNING]
    matching = filters.apply(call.params, rows, _STATUS_FILTERS, lambda row: row[1])
    shown, token = filters.page(call.params, matching, lambda row: row[0].id, bool(texts))
    return {"instanceStatusSet": items([status for _, status in shown]), "nextToken": token}


def terminate_instances(call: Call) -> Reply:
    """An instance that no host has yet is gone at once; any other when its host says so."""

    def change(s: orm.Session, instance: Instance) -> bool:
        if instance.is_gone:
            return False
        new = db.TERMINATED if instance.host is None else db.SHUTTING_DOWN
        values = {"reason": "User initiated", "task": None if instance.host is None else db.DELETING}
        db.move(s, instance.id, (instance.state,), new, **values)
        return instance.host is not None

    return _change(call, change, "terminate_instance")


def stop_instances(call: Call) -> Reply:
    def change(s: orm.Session, instance: Instance) -> bool:
        if instance.state in (db.STOPPING, db.STOPPED):
            return False
        _require(instance, db.RUNNING)
        return db.move(s, instance.id, (db.RUNNING,), db.STOPPING, reason="User initiated") is not None

    return _change(call, change, "stop_instance")


def start_instances(call: Call) -> Reply:
    def change(s: orm.Session, instance: Instance) -> bool:
        if instance.state in (db.PENDING, db.RUNNING):
            return False
        _require(instance, db.STOPPED)
        return db.move(s, instance.id, (db.STOPPED,), db.PENDING, task=db.STARTING, reason="") is not None

    return _change(call, change, "start_instance")


def reboot_instances(call: Call) -> Reply:
    def change(s: orm.Session, instance: Instance) -> bool:
        _require(instance, db.RUNNING)
        return True

    _change(call, change, "reboot_instance")
    return {"return": True}


def get_console_output(call: Call) -> Reply:
    text = call.params.required("InstanceId")
    (instance,), _ = _visible(call, [text])
    output = ""
    if instance.host and not instance.is_gone:
        client = call.client(FLAGS.compute_topic, server=instance.host, timeout=CALL_TIMEOUT_S)
        try:
            output = client.call(call.context, "get_console_output", instance_id=instance.id)
        except rpc.RemoteError:
            output = ""  # there is no guest yet
    return {
        "instanceId": text,
        "timestamp": moment(instance.updated_at),
        "output": base64.b64encode(output.encode()).decode(),
    }


def describe_instance_attribute(call: Call) -> Reply:
    text = call.params.required("InstanceId")
    attribute = call.params.required("Attribute")
    (instance,), around = _visible(call, [text])
    shown: dict[str, Callable[[], Any]] = {
        "instanceType": lambda: {"value": instance.instance_type},
        "userData": lambda: {"value": instance.user_data} if instance.user_data else {},
        "disableApiTermination": lambda: {"value": False},
        "instanceInitiatedShutdownBehavior": lambda: {"value": "stop"},
        "groupSet": lambda: _group_set(instance, around),
        "blockDeviceMapping": lambda: items(_devices(instance, around)),
    }
    if attribute not in shown:
        raise errors.invalid("Attribute", attribute, ", ".join(shown))
    return {"instanceId": text, attribute: shown[attribute]()}


# What an instance looks like


def reservation_view(made: list[Instance]) -> Reply:
    """The instances of one reservation, as RunInstances answers."""
    with session.read() as s:
        around = Surroundings.of(s, made[0].project_id, made)
    return _reservation(made, around)


def state_of(state: str) -> dict[str, Any]:
    """EC2 has no error: an instance that failed is terminated, with the reason."""
    name = db.TERMINATED if state == db.ERROR else state
    return {"code": CODES[name], "name": name}


def view(instance: Instance, around: Surroundings) -> dict[str, Any]:
    """One instance; keys that begin with an underscore are for filters and are not sent."""
    floating = around.floating.get(instance.id)
    return {
        "_reservationId": instance.reservation_id,
        "_ownerId": instance.project_id,
        "instanceId": ids.of("i", instance.id),
        "imageId": instance.image_id,
        "instanceState": state_of(instance.state),
        "privateDnsName": "",
        "dnsName": "",
        "reason": instance.reason,
        "keyName": instance.key_name,
        "amiLaunchIndex": instance.launch_index,
        "instanceType": instance.instance_type,
        "launchTime": moment(instance.launched_at or instance.created_at),
        "placement": {"availabilityZone": _zone(instance), "tenancy": "default"},
        "monitoring": {"state": "disabled"},
        "privateIpAddress": around.fixed.get(instance.id),
        "ipAddress": floating,
        "stateReason": _state_reason(instance),
        "architecture": "x86_64",
        "rootDeviceType": "instance-store",
        "blockDeviceMapping": items(_devices(instance, around)),
        "virtualizationType": "hvm",
        "clientToken": instance.client_token or "",
        "tagSet": tag_set(around.tagged.get(ids.of("i", instance.id), {})),
        "groupSet": _group_set(instance, around),
        "hypervisor": "xen",
    }


def _reservation(found: Iterable[Instance], around: Surroundings) -> dict[str, Any]:
    members = sorted(found, key=lambda instance: instance.launch_index)
    views = [view(instance, around) for instance in members]
    return {
        "reservationId": members[0].reservation_id,
        "ownerId": members[0].project_id,
        "groupSet": _group_set(members[0], around),
        "instancesSet": items(
            [{key: value for key, value in item.items() if not key.startswith("_")} for item in views]
        ),
    }


def _zone(instance: Instance) -> str:
    zone = (instance.availability_zone or "").partition(":")[0]
    return zone or str(FLAGS.node_availability_zone)


def _state_reason(instance: Instance) -> Reply | None:
    if instance.state == db.ERROR:
        is_full = instance.reason.startswith("NoValidHost")
        code = "Server.InsufficientInstanceCapacity" if is_full else "Server.InternalError"
        return {"code": code, "message": f"{code}: {instance.reason}"}
    if instance.reason:
        code = "Client.UserInitiatedShutdown" if instance.state in _ENDING else "Server.InternalError"
        return {"code": code, "message": f"{code}: {instance.reason}"}
    return None


_ENDING = (db.SHUTTING_DOWN, db.TERMINATED, db.STOPPING, db.STOPPED)


def _group_set(instance: Instance, around: Surroundings) -> Reply:
    return items(
        [
            {"groupId": ids.of("sg", around.group_ids[name]), "groupName": name}
            for name in instance.security_groups
            if name in around.group_ids
        ]
    )


def _devices(instance: Instance, around: Surroundings) -> list[Reply]:
    return [
        {
            "deviceName": volume.device,
            "ebs": {
                "volumeId": ids.of("vol", volume.id),
                "status": "attached" if volume.status == volumes.IN_USE else volume.status,
                "attachTime": moment(volume.attached_at),
                "deleteOnTermination": False,
            },
        }
        for volume in around.attached.get(instance.id, [])
    ]


def _status_view(instance: Instance) -> dict[str, Any]:
    is_running = instance.state == db.RUNNING
    status = {"status": "ok" if is_running else "not-applicable"}
    return {
        "instanceId": ids.of("i", instance.id),
        "availabilityZone": _zone(instance),
        "instanceState": state_of(instance.state),
        "systemStatus": status,
        "instanceStatus": status,
    }


# What the actions share


def _visible(call: Call, texts: list[str]) -> tuple[list[Instance], Surroundings]:
    """The instances of the request, all of the project where it names none. Raises `Ec2Error`."""
    numbers = [ids.parse("i", text) for text in texts]
    with session.read() as s:
        found = db.visible(s, call.project_id, numbers)
        around = Surroundings.of(s, call.project_id, found)
    _require_all(found, texts, numbers)
    return found, around


def _change(call: Call, change: Callable[[orm.Session, Instance], bool], method: str) -> Reply:
    """Change all instances of the request, or none, and tell the hosts of those that `change` says so of."""
    texts = list(dict.fromkeys(call.params.texts("InstanceId")))
    if not texts:
        raise errors.missing("InstanceId")
    numbers = [ids.parse("i", text) for text in texts]
    with session.begin() as s:
        found = db.visible(s, call.project_id, numbers)
        _require_all(found, texts, numbers)
        before = {instance.id: state_of(instance.state) for instance in found}
        to_tell = [instance for instance in found if change(s, instance)]
    for instance in to_tell:
        tell(call, FLAGS.compute_topic, instance.host, method, instance_id=instance.id)
    return {
        "instancesSet": items(
            [
                {
                    "instanceId": ids.of("i", instance.id),
                    "currentState": state_of(instance.state),
                    "previousState": before[instance.id],
                }
                for instance in found
            ]
        )
    }


def _require_all(found: list[Instance], texts: list[str], numbers: list[int]) -> None:
    present = {instance.id for instance in found}
    missing = [text for text, number in zip(texts, numbers, strict=True) if number not in present]
    if missing:
        raise ids.not_found("i", *missing)


def _require(instance: Instance, state: str) -> None:
    if instance.state != state:
        name = state_of(instance.state)["name"]
        raise Ec2Error("IncorrectInstanceState", f"{ids.of('i', instance.id)} is {name}, not {state}")
