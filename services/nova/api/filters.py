"""Filters and pages of the Describe actions. Pure.

A resource is described once, as the structure that becomes XML; a filter looks at that same structure, so what is
shown and what is matched cannot differ.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nova.api.errors import Ec2Error
from nova.api.query import Params

View = Mapping[str, Any]
# Name of a filter -> the values that a resource has for it.
Readers = Mapping[str, Callable[[View], Sequence[object]]]

T = TypeVar("T")


def field(*path: str) -> Callable[[View], Sequence[object]]:
    """A reader of the values at the end of a path; it goes through every item of a set on its way."""

    def read(view: View) -> Sequence[object]:
        found: list[Any] = [view]
        for name in path:
            found = [item[name] for item in found if isinstance(item, Mapping) and item.get(name) is not None]
            found = [part for item in found for part in (item if isinstance(item, list) else [item])]
        return found

    return read


def apply(params: Params, views: Sequence[T], readers: Readers, view_of: Callable[[T], View]) -> list[T]:
    """Those of `views` that match every filter of the request. Raises `Ec2Error` for a filter that is unknown."""
    tests = [_test(filter_, readers) for filter_ in params.structures("Filter")]
    return [item for item in views if all(test(view_of(item)) for test in tests)]


def _test(filter_: Params, readers: Readers) -> Callable[[View], bool]:
    name = filter_.required("Name")
    patterns = [_pattern(value) for value in filter_.texts("Value")]
    if name.startswith("tag:"):
        read = _tag_reader(name.removeprefix("tag:"))
    elif name == "tag-key":
        read = field("tagSet", "item", "key")
    elif name in readers:
        read = readers[name]
    else:
        raise Ec2Error("InvalidParameterValue", f"the filter {name[:80]!r} is not known here")

    def test(view: View) -> bool:
        return any(pattern.fullmatch(_word(value)) for value in read(view) for pattern in patterns)

    return test


def _tag_reader(key: str) -> Callable[[View], Sequence[object]]:
    def read(view: View) -> Sequence[object]:
        return [tag["value"] for tag in view.get("tagSet", {}).get("item", []) if tag["key"] == key]

    return read


def _pattern(text: str) -> re.Pattern[str]:
    """EC2's wildcards: * any characters, ? one, a backslash takes the next as it is."""
    parts = re.findall(r"\\.|.", text, re.DOTALL)
    known = {"*": ".*", "?": "."}
    return re.compile("".join(known.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def page(
    params: Params, items: Sequence[T], id_of: Callable[[T], int], has_ids: bool
) -> tuple[list[T], str | None]:
    """The page that the request asks for, of `items` sorted by id, and the token of the next one."""
    token = params.text("NextToken")
    if "MaxResults" not in params and not token:
        return list(items), None
    if has_ids:
        raise Ec2Error("InvalidParameterCombination", "MaxResults and NextToken do not go with ids")
    limit = params.number("MaxResults", 1000, 5, 1000)
    start = _position(token) if token else 0
    rest = [item for item in items if id_of(item) > start]
    shown = rest[:limit]
    more = len(rest) > limit
    return shown, base64.urlsafe_b64encode(str(id_of(shown[-1])).encode()).decode() if more else None


def _position(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError):
        raise Ec2Error("InvalidParameterValue", "NextToken is not one of ours") from None
