"""RunInstances: from a request to rows that wait for a scheduler.

Everything is checked and written in one transaction with the client token, so a request that is repeated, by a client
that had no answer, launches nothing twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import orm

from nova import flags
from nova.api import errors, groups, ids, images, types
from nova.api.call import Call, Reply, specified_tags
from nova.api.errors import Ec2Error
from nova.api.instances import reservation_view
from nova.api.query import Params
from nova.api.told import tell
from nova.db import instances as db
from nova.db import keypairs, session, tags, tokens
from nova.db.instances import Instance

FLAGS = flags.FLAGS
flags.DEFINE_integer("quota_instances", 100, "instances that a project may have", least=0)

MAX_USER_DATA_BYTES = 16 * 1024  # EC2's limit, before base64


@dataclass(frozen=True)
class Wanted:
    """What a RunInstances asks for, checked as far as it can be without the database."""

    image_id: str
    instance_type: str
    least: int
    most: int
    key_name: str
    user_data: str
    zone: str
    token: str


def run_instances(call: Call) -> Reply:
    wanted = read(call.params)
    given = specified_tags(call.params, "instance")
    mark = tokens.fingerprint({**asdict(wanted), "groups": _group_names(call.params), "tags": given})
    with session.begin() as s:
        known = _known(s, call, wanted.token, mark)
        made = known or _create(s, call, wanted, given, mark)
    if not known:
        for instance in made:
            tell(call, FLAGS.scheduler_topic, None, "run_instance", instance_id=instance.id)
    return reservation_view(made)


def read(params: Params) -> Wanted:
    """Raises `Ec2Error`."""
    most = params.number("MaxCount", 1, 1, 1000)
    least = params.number("MinCount", 1, 1, 1000)
    if least > most:
        raise errors.invalid("MinCount", least, f"at most MaxCount, {most}")
    kind = params.text("InstanceType", types.DEFAULT)
    types.get(kind)
    ids.parse("ami", params.required("ImageId"))
    return Wanted(
        image_id=params.required("ImageId"),
        instance_type=kind,
        least=least,
        most=most,
        key_name=params.text("KeyName", max_length=255),
        user_data=params.encoded("UserData", MAX_USER_DATA_BYTES),
        zone=_zone(params.structure("Placement")),
        token=params.text("ClientToken", max_length=64),
    )


def _zone(placement: Params) -> str:
    for name in placement:
        if name not in ("AvailabilityZone", "Tenancy"):
            raise Ec2Error(
                "UnknownParameter", f"the parameter {placement.full(name)[:80]} is not understood here"
            )
    if placement.text("Tenancy", "default") != "default":
        raise Ec2Error("UnsupportedOperation", "instances here share their hosts: Placement.Tenancy is default")
    return placement.text("AvailabilityZone", max_length=255)


def _create(s: orm.Session, call: Call, wanted: Wanted, given: dict[str, str], mark: str) -> list[Instance]:
    images.usable(s, call, wanted.image_id)
    if wanted.key_name and keypairs.find(s, call.project_id, wanted.key_name) is None:
        raise Ec2Error("InvalidKeyPair.NotFound", f"there is no key pair {wanted.key_name}")
    made = db.create(s, _count(s, call, wanted), **_columns(s, call, wanted))
    for instance in made:
        for key, value in given.items():
            tags.put(s, call.project_id, ids.of("i", instance.id), key, value)
    if wanted.token:
        reservation = made[0].reservation_id
        tokens.keep(s, call.project_id, "RunInstances", wanted.token, mark, reservation)
    return made


def _count(s: orm.Session, call: Call, wanted: Wanted) -> int:
    """As many as the quota allows, between MinCount and MaxCount."""
    room = FLAGS.quota_instances - db.count_alive(s, call.project_id)
    if room < wanted.least:
        raise Ec2Error(
            "InstanceLimitExceeded",
            f"a project may have {FLAGS.quota_instances} instances, {max(room, 0)} are left",
        )
    return min(room, wanted.most)


def _columns(s: orm.Session, call: Call, wanted: Wanted) -> dict[str, Any]:
    return {
        "reservation_id": ids.reservation(),
        "project_id": call.project_id,
        "user_id": call.user_id,
        "image_id": wanted.image_id,
        "instance_type": wanted.instance_type,
        **asdict(types.get(wanted.instance_type)),
        "key_name": wanted.key_name or None,
        "security_groups": [group.name for group in groups.resolve(s, call.project_id, call.params)],
        "user_data": wanted.user_data or None,
        "client_token": wanted.token or None,
        "availability_zone": wanted.zone or None,
    }


def _known(s: orm.Session, call: Call, token: str, mark: str) -> list[Instance]:
    """The instances that this client token launched before."""
    try:
        reservation = tokens.find(s, call.project_id, "RunInstances", token, mark) if token else None
    except tokens.Mismatch as error:
        raise Ec2Error("IdempotentParameterMismatch", str(error)) from None
    return db.by_reservation(s, reservation) if reservation else []


def _group_names(params: Params) -> list[str]:
    return sorted(params.texts("SecurityGroup") + params.texts("SecurityGroupId"))
