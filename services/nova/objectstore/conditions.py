"""Conditional and partial requests: If-Match and its relatives, and Range. Pure.

Source: RFC 9110 sections 13 and 14; where S3 differs (a Range of several parts is answered whole), S3's way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nova.objectstore.errors import S3Error
from nova.objectstore.records import StoredObject

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def check_read(headers: Mapping[str, str], etag: str, modified: datetime, prefix: str = "") -> None:
    """Raises `S3Error` PreconditionFailed or NotModified. A copy's source has the prefix `x-amz-copy-source-`."""
    modified = modified.replace(microsecond=0)  # HTTP's dates have whole seconds
    if_match = headers.get(prefix + "if-match")
    if_none_match = headers.get(prefix + "if-none-match")
    if if_match is not None:
        if not _matches(if_match, etag):
            raise _failed("If-Match")
    elif (limit := _date(headers, prefix + "if-unmodified-since")) and modified > limit:
        raise _failed("If-Unmodified-Since")
    if if_none_match is not None:
        if _matches(if_none_match, etag):
            raise _failed("If-None-Match") if prefix else S3Error("NotModified", "the object is what you have")
    elif (limit := _date(headers, prefix + "if-modified-since")) and modified <= limit:
        raise _failed("If-Modified-Since") if prefix else S3Error("NotModified", "the object is what you have")


def write_guard(headers: Mapping[str, str]) -> Callable[[StoredObject | None], None]:
    """What a conditional PUT demands of the object that it replaces."""

    def guard(old: StoredObject | None) -> None:
        if_match, if_none_match = headers.get("if-match"), headers.get("if-none-match")
        if if_none_match is not None and old is not None and _matches(if_none_match, old.etag):
            raise _failed("If-None-Match")
        if if_match is not None:
            if old is None:
                raise S3Error("NoSuchKey", "If-Match needs an object that exists")
            if not _matches(if_match, old.etag):
                raise _failed("If-Match")

    return guard


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of a satisfiable Range; None means all of it. Raises `S3Error` InvalidRange."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None  # several ranges, or another unit: RFC 9110 lets a server ignore it
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        if length:
            return size - length, length
    elif int(first) < size:
        if last and int(last) < int(first):
            return None
        end = min(int(last), size - 1) if last else size - 1
        return int(first), end - int(first) + 1
    raise S3Error("InvalidRange", f"the object has {size} bytes; {header} is outside of it")


def _matches(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return "*" in tags or etag in tags


def _date(headers: Mapping[str, str], name: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(headers.get(name, ""))
    except (TypeError, ValueError):
        return None  # RFC 9110: an invalid date is ignored
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _failed(name: str) -> S3Error:
    return S3Error("PreconditionFailed", f"{name} does not hold for the object")
