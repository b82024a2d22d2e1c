"""Volumes: the row changes here, in one transaction; nova-volume and nova-compute are told to follow it."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import orm

from nova import exception, flags
from nova.api import errors, filters, ids, zones
from nova.api.call import Call, Reply, items, moment, specified_tags, tag_set
from nova.api.errors import Ec2Error
from nova.api.told import tell
from nova.db import instances, services, session, tags, tokens, volumes
from nova.db.session import now
from nova.db.volumes import Volume

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "quota_gigabytes", 1000, "gigabytes that the volumes of a project may have together", least=0
)

MAX_SIZE_GB = 16384  # EC2's limit for a gp2 volume

FILTERS = {
    "volume-id": filters.field("volumeId"),
    "status": filters.field("status"),
    "size": filters.field("size"),
    "availability-zone": filters.field("availabilityZone"),
    "attachment.instance-id": filters.field("attachmentSet", "item", "instanceId"),
    "attachment.device": filters.field("attachmentSet", "item", "device"),
    "attachment.status": filters.field("attachmentSet", "item", "status"),
}
# EC2 knows no attaching and detaching volumes, only attachments.
_SHOWN = {volumes.ATTACHING: volumes.IN_USE, volumes.DETACHING: volumes.IN_USE}
_ATTACHMENT = {volumes.ATTACHING: "attaching", volumes.IN_USE: "attached", volumes.DETACHING: "detaching"}


def create_volume(call: Call) -> Reply:
    params = call.params
    if params.text("SnapshotId"):
        raise Ec2Error("InvalidSnapshot.NotFound", f"there is no snapshot {params.text('SnapshotId')[:80]}")
    params.required("Size")
    size = params.number("Size", 1, 1, MAX_SIZE_GB)
    zone = params.text("AvailabilityZone") or FLAGS.node_availability_zone
    if zone.partition(":")[0] not in zones.zone_names(services.get_all()):
        raise Ec2Error("InvalidZone.NotFound", f"there is no zone {zone[:80]!r}")
    given = specified_tags(params, "volume")
    token, mark = params.text("ClientToken", max_length=64), tokens.fingerprint({"size": size, "zone": zone})
    with session.begin() as s:
        known = _known(s, call, token, mark)
        if known is not None:
            return known
        used = sum(item.size_gb for item in volumes.visible(s, call.project_id))
        if used + size > FLAGS.quota_gigabytes:
            raise Ec2Error(
                "VolumeLimitExceeded", f"a project may have {FLAGS.quota_gigabytes} GB, {used} are used"
            )
        made = volumes.create(
            s, project_id=call.project_id, user_id=call.user_id, size_gb=size, availability_zone=zone
        )
        for key, value in given.items():
            tags.put(s, call.project_id, ids.of("vol", made.id), key, value)
        if token:
            tokens.keep(s, call.project_id, "CreateVolume", token, mark, str(made.id))
    tell(call, FLAGS.scheduler_topic, None, "create_volume", volume_id=made.id)
    return view(made, given)


def describe_volumes(call: Call) -> Reply:
    texts = call.params.texts("VolumeId")
    numbers = [ids.parse("vol", text) for text in texts]
    with session.read() as s:
        found = volumes.visible(s, call.project_id, numbers)
        tagged = tags.of(s, [ids.of("vol", item.id) for item in found])
    present = {item.id for item in found}
    missing = [text for text, number in zip(texts, numbers, strict=True) if number not in present]
    if missing:
        raise ids.not_found("vol", *missing)
    rows = [(item.id, view(item, tagged.get(ids.of("vol", item.id), {}))) for item in found]
    matching = filters.apply(call.params, rows, FILTERS, lambda row: row[1])
    shown, token = filters.page(call.params, matching, lambda row: row[0], bool(numbers))
    return {"volumeSet": items([item for _, item in shown]), "nextToken": token}


def delete_volume(call: Call) -> Reply:
    with session.begin() as s:
        found = _locked(s, call)
        if found.status in _ATTACHMENT:
            raise Ec2Error("VolumeInUse", f"{ids.of('vol', found.id)} is in use by {_instance_id(found)}")
        host, deletable = found.host, (volumes.AVAILABLE, volumes.ERROR, volumes.CREATING, volumes.DELETING)
        # A volume that never had a host has no file to delete.
        new = volumes.DELETING if host else volumes.DELETED
        if volumes.move(s, found.id, deletable, new) is None:
            raise Ec2Error("IncorrectState", f"{ids.of('vol', found.id)} is {found.status}")
        tags.remove(s, call.project_id, ids.of("vol", found.id), None, None)
    if host:
        tell(call, FLAGS.volume_topic, host, "delete_volume", volume_id=found.id)
    return {"return": True}


def attach_volume(call: Call) -> Reply:
    text = call.params.required("InstanceId")
    number = ids.parse("i", text)
    device = call.params.required("Device", max_length=32)
    if not re.fullmatch(r"(/dev/)?[a-z]{2,4}[a-z0-9]*", device):
        raise errors.invalid("Device", device, "a name like /dev/vdb")
    with session.begin() as s:
        instance = instances.locked(s, number)
        if instance is None or instance.project_id != call.project_id or instance.is_gone:
            raise ids.not_found("i", text)
        if instance.state not in (instances.RUNNING, instances.STOPPED):
            raise Ec2Error("IncorrectInstanceState", f"{text} is {instance.state}")
        if device in {item.device for item in volumes.of_instance(s, number)}:
            raise Ec2Error("InvalidParameterValue", f"{device} of {text} is in use")
        found = _locked(s, call)
        if found.status in _ATTACHMENT:
            raise Ec2Error("VolumeInUse", f"{ids.of('vol', found.id)} is in use by {_instance_id(found)}")
        values: dict[str, Any] = {"instance_id": number, "device": device, "attached_at": now()}
        changed = volumes.move(s, found.id, (volumes.AVAILABLE,), volumes.ATTACHING, **values)
        if changed is None:
            raise Ec2Error("IncorrectState", f"{ids.of('vol', found.id)} is {found.status}")
        host = instance.host
    tell(call, FLAGS.compute_topic, host, "attach_volume", instance_id=number, volume_id=changed.id)
    return _attachment(changed)


def detach_volume(call: Call) -> Reply:
    with session.begin() as s:
        found = _locked(s, call)
        text = call.params.text("InstanceId")
        if found.instance_id is None or (text and ids.parse("i", text) != found.instance_id):
            raise Ec2Error("IncorrectState", f"{ids.of('vol', found.id)} is not attached to {text or 'anything'}")
        changed = volumes.move(s, found.id, (volumes.IN_USE, volumes.DETACHING), volumes.DETACHING)
        if changed is None:
            raise Ec2Error("IncorrectState", f"{ids.of('vol', found.id)} is {found.status}")
        host = instances.get(s, found.instance_id).host
    args = {"instance_id": changed.instance_id, "volume_id": changed.id}
    tell(call, FLAGS.compute_topic, host, "detach_volume", **args)
    return _attachment(changed)


def view(item: Volume, tagged: dict[str, str]) -> Reply:
    return {
        "volumeId": ids.of("vol", item.id),
        "size": item.size_gb,
        "availabilityZone": item.availability_zone,
        "status": _SHOWN.get(item.status, item.status),
        "createTime": moment(item.created_at),
        "attachmentSet": items([_attachment(item)] if item.status in _ATTACHMENT else []),
        "volumeType": "standard",
        "encrypted": False,
        "tagSet": tag_set(tagged),
    }


def _known(s: orm.Session, call: Call, token: str, mark: str) -> Reply | None:
    """The volume that this client token made before."""
    try:
        result = tokens.find(s, call.project_id, "CreateVolume", token, mark) if token else None
    except tokens.Mismatch as error:
        raise Ec2Error("IdempotentParameterMismatch", str(error)) from None
    if result is None:
        return None
    found = s.get(Volume, int(result))
    return view(found, tags.of(s, [ids.of("vol", found.id)]).get(ids.of("vol", found.id), {})) if found else None


def _locked(s: orm.Session, call: Call) -> Volume:
    text = call.params.required("VolumeId")
    number = ids.parse("vol", text)
    try:
        volumes.get(s, number, call.project_id)
    except exception.NotFound:
        raise ids.not_found("vol", text) from None
    found = volumes.locked(s, number)
    assert found is not None
    return found


def _instance_id(item: Volume) -> str:
    return ids.of("i", item.instance_id) if item.instance_id is not None else "nothing"


def _attachment(item: Volume) -> dict[str, Any]:
    return {
        "volumeId": ids.of("vol", item.id),
        "instanceId": _instance_id(item),
        "device": item.device,
        "status": _ATTACHMENT.get(item.status, "detached"),
        "attachTime": moment(item.attached_at),
        "deleteOnTermination": False,
    }
