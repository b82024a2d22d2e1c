"""Images: registered from what lies in the object store, or brought along by the driver."""

from __future__ import annotations

from sqlalchemy import orm

from nova.api import errors, filters, ids
from nova.api.call import DONE, Call, Reply, items, moment, specified_tags, tag_set
from nova.api.errors import Ec2Error
from nova.db import images, session, tags
from nova.db.images import Image

FILTERS = {
    "image-id": filters.field("imageId"),
    "name": filters.field("name"),
    "state": filters.field("imageState"),
    "owner-id": filters.field("imageOwnerId"),
    "is-public": filters.field("isPublic"),
    "architecture": filters.field("architecture"),
    "image-type": filters.field("imageType"),
    "description": filters.field("description"),
}


def describe_images(call: Call) -> Reply:
    numbers = [ids.parse("ami", text) for text in call.params.texts("ImageId")]
    owners = ["" if owner == "self" else owner for owner in call.params.texts("Owner")]
    with session.read() as s:
        found = images.visible(s, call.project_id)
        tagged = tags.of(s, [ids.of("ami", image.id) for image in found])
    missing = [ids.of("ami", number) for number in numbers if number not in {image.id for image in found}]
    if missing:
        raise ids.not_found("ami", *missing)
    wanted = [
        image
        for image in found
        if (not numbers or image.id in numbers) and (not owners or image.project_id in _owners(owners, call))
    ]
    rows = [(image.id, _view(image, tagged.get(ids.of("ami", image.id), {}))) for image in wanted]
    matching = filters.apply(call.params, rows, FILTERS, lambda row: row[1])
    shown, token = filters.page(call.params, matching, lambda row: row[0], bool(numbers))
    return {"imagesSet": items([view for _, view in shown]), "nextToken": token}


def register_image(call: Call) -> Reply:
    """An image that lies at ImageLocation, BUCKET/KEY in the object store."""
    name = call.params.required("Name", max_length=128)
    location = call.params.text("ImageLocation", max_length=1100).lstrip("/")
    if location and not location.partition("/")[2]:
        raise errors.invalid("ImageLocation", location, "BUCKET/KEY")
    given = specified_tags(call.params, "image")
    with session.begin() as s:
        if any(image.name == name and image.project_id == call.project_id for image in _own(s, call)):
            raise Ec2Error("InvalidAMIName.Duplicate", f"there is an image {name} already")
        made = images.create(
            s,
            project_id=call.project_id,
            name=name,
            description=call.params.text("Description", max_length=255),
            location=location,
            architecture=call.params.text("Architecture", "x86_64", max_length=16),
        )
        image_id = ids.of("ami", made.id)
        for key, value in given.items():
            tags.put(s, call.project_id, image_id, key, value)
    return {"imageId": image_id}


def deregister_image(call: Call) -> Reply:
    text = call.params.required("ImageId")
    with session.begin() as s:
        image = _owned(s, call, text)
        tags.remove(s, call.project_id, text, None, None)
        s.delete(image)
    return DONE


def modify_image_attribute(call: Call) -> Reply:
    """The description, and whether everybody may launch it."""
    text = call.params.required("ImageId")
    permission = call.params.structure("LaunchPermission")
    with session.begin() as s:
        image = _owned(s, call, text)
        if "Description" in call.params:
            image.description = call.params.text("Description.Value") or call.params.text("Description")
        for verb, is_public in (("Add", True), ("Remove", False)):
            for change in permission.structures(verb):
                if change.text("Group") != "all":
                    raise Ec2Error("InvalidParameterValue", "launch permissions here are for the group all only")
                image.is_public = is_public
    return DONE


def describe_image_attribute(call: Call) -> Reply:
    text = call.params.required("ImageId")
    attribute = call.params.required("Attribute")
    with session.read() as s:
        image = images.get(s, call.project_id, ids.parse("ami", text))
    if image is None:
        raise ids.not_found("ami", text)
    if attribute == "launchPermission":
        return {"imageId": text, "launchPermission": items([{"group": "all"}] if image.is_public else [])}
    if attribute == "description":
        return {"imageId": text, "description": {"value": image.description}}
    raise errors.invalid("Attribute", attribute, "launchPermission or description")


def usable(s: orm.Session, call: Call, text: str) -> Image:
    """The image that an instance is to be made of. Raises `Ec2Error`."""
    image = images.get(s, call.project_id, ids.parse("ami", text))
    if image is None:
        raise ids.not_found("ami", text)
    return image


def _own(s: orm.Session, call: Call) -> list[Image]:
    return [image for image in images.visible(s, call.project_id) if image.project_id == call.project_id]


def _owned(s: orm.Session, call: Call, text: str) -> Image:
    image = usable(s, call, text)
    if image.project_id != call.project_id and not call.context.is_admin:
        raise Ec2Error("AuthFailure", f"{text} belongs to another project")
    return image


def _owners(owners: list[str], call: Call) -> set[str]:
    return {owner or call.project_id for owner in owners}


def _view(image: Image, tagged: dict[str, str]) -> Reply:
    return {
        "imageId": ids.of("ami", image.id),
        "imageLocation": image.location or image.name,
        "imageState": "available",
        "imageOwnerId": image.project_id,
        "isPublic": image.is_public,
        "architecture": image.architecture,
        "imageType": "machine",
        "name": image.name,
        "description": image.description,
        "creationDate": moment(image.created_at),
        "rootDeviceType": "instance-store",
        "virtualizationType": "hvm",
        "hypervisor": "xen",
        "tagSet": tag_set(tagged),
    }
