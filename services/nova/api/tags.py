"""Tags on instances, volumes, images, security groups and key pairs."""

from __future__ import annotations

from sqlalchemy import orm

from nova.api import errors, filters, ids
from nova.api.call import DONE, Call, Reply, items, read_tags
from nova.api.errors import Ec2Error
from nova.db import session, tags
from nova.db.groups import SecurityGroup
from nova.db.images import Image
from nova.db.instances import Instance
from nova.db.keypairs import KeyPair
from nova.db.volumes import Volume

_KINDS = {
    "i": ("instance", Instance),
    "vol": ("volume", Volume),
    "ami": ("image", Image),
    "sg": ("security-group", SecurityGroup),
    "key": ("key-pair", KeyPair),
}

FILTERS = {
    "key": filters.field("key"),
    "value": filters.field("value"),
    "resource-id": filters.field("resourceId"),
    "resource-type": filters.field("resourceType"),
}


def create_tags(call: Call) -> Reply:
    given = read_tags(call.params)
    if not given:
        raise errors.missing("Tag.1.Key")
    with session.begin() as s:
        for resource in _resources(s, call):
            for key, value in given.items():
                tags.put(s, call.project_id, resource, key, value)
    return DONE


def delete_tags(call: Call) -> Reply:
    """Without tags in the request, all tags of the resources; with a value only tags that have it."""
    given = [
        (tag.required("Key"), tag.text("Value") if "Value" in tag else None)
        for tag in call.params.structures("Tag")
    ]
    with session.begin() as s:
        for resource in _resources(s, call):
            if not given:
                tags.remove(s, call.project_id, resource, None, None)
            for key, value in given:
                tags.remove(s, call.project_id, resource, key, value)
    return DONE


def describe_tags(call: Call) -> Reply:
    with session.read() as s:
        found = tags.get_all(s, call.project_id)
    views = [
        {
            "resourceId": tag.resource_id,
            "resourceType": _KINDS[tag.resource_id.partition("-")[0]][0],
            "key": tag.key,
            "value": tag.value,
        }
        for tag in found
    ]
    rows = list(enumerate(filters.apply(call.params, views, FILTERS, lambda view: view), 1))
    shown, token = filters.page(call.params, rows, lambda row: row[0], has_ids=False)
    return {"tagSet": items([view for _, view in shown]), "nextToken": token}


def _resources(s: orm.Session, call: Call) -> list[str]:
    """The resources of the request, all of which exist and belong to the project."""
    texts = call.params.texts("ResourceId")
    if not texts:
        raise errors.missing("ResourceId")
    for text in texts:
        prefix = text.partition("-")[0]
        if prefix not in _KINDS:
            raise Ec2Error("InvalidID", f"{text[:80]!r} is not the id of anything here")
        found = s.get(_KINDS[prefix][1], ids.parse(prefix, text))
        if found is None or getattr(found, "project_id", None) != call.project_id:
            raise ids.not_found(prefix, text)
    return texts
