"""One request of the EC2 API, as an action sees it; and the words that actions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nova import rpc
from nova.api.errors import Ec2Error
from nova.api.query import Params
from nova.context import RequestContext

Reply = Mapping[str, Any]

# Seconds of silence of another service after which the client is told ServiceUnavailable; boto3 waits for 60.
CALL_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Call:
    """Who asks for what. `client` makes the way to a service; it is `rpc.Client` but in tests of one action."""

    context: RequestContext
    params: Params
    client: Callable[..., Any] = rpc.Client

    @property
    def project_id(self) -> str:
        return self.context.project_id or ""

    @property
    def user_id(self) -> str:
        return self.context.user_id or ""


DONE: Reply = {"return": True}


def items(values: list[Any]) -> dict[str, list[Any]]:
    """EC2's sets: an element with any number of `item`."""
    return {"item": values}


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def tag_set(tags: Mapping[str, str]) -> dict[str, Any]:
    return items([{"key": key, "value": value} for key, value in tags.items()])


def specified_tags(params: Params, resource_type: str) -> dict[str, str]:
    """The tags that a request gives to what it creates."""
    found: dict[str, str] = {}
    for specification in params.structures("TagSpecification"):
        if specification.required("ResourceType") != resource_type:
            raise Ec2Error("InvalidParameterValue", f"tags here are for the resource type {resource_type}")
        found.update(read_tags(specification))
    return found


def read_tags(params: Params) -> dict[str, str]:
    """`Tag.N.Key` and `Tag.N.Value`. Raises `Ec2Error` for what EC2 does not take as a tag."""
    tags: dict[str, str] = {}
    for tag in params.structures("Tag"):
        key = tag.required("Key", max_length=127)
        if key.startswith("aws:"):
            raise Ec2Error("InvalidParameterValue", "keys that begin with aws: are reserved")
        tags[key] = tag.text("Value", max_length=255)
    if len(tags) > 50:
        raise Ec2Error("TagLimitExceeded", "a resource has at most 50 tags")
    return tags
