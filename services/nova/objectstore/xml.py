"""S3's XML: documents out of nested values, and the two kinds of document that come in. Pure.

A document is `(name, value)`; a value is text, a dict of children, or a list, which repeats its element. What
comes in is read without a DTD: entities are how a small body becomes a large one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from nova.objectstore.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

Value = Any  # str, int, bool, datetime, None, or a mapping or sequence of them

# What XML 1.0 cannot hold, not even escaped; clients that use such keys ask for encoding-type=url.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(name: str, value: Mapping[str, Value], namespace: str | None = NAMESPACE) -> bytes:
    """A whole document; None leaves its element out."""
    attribute = f' xmlns="{namespace}"' if namespace else ""
    body = "".join(_element(child, item) for child, item in value.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{attribute}>{body}</{name}>'.encode()


def _element(name: str, value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "".join(_element(name, item) for item in value)
    return f"<{name}>{_content(value)}</{name}>"


def _content(value: Value) -> str:
    if isinstance(value, Mapping):
        return "".join(_element(child, item) for child, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return timestamp(value)
    return text(str(value))


def text(value: str) -> str:
    """Text as XML holds it; a newline survives the parser only as a reference."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value), {"\r": "&#13;"})


def timestamp(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"


def parse(body: bytes, root: str) -> Element:
    """The tree of `body`, names without their namespace. Raises `S3Error` MalformedXML."""
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: builder.start(name.rpartition(" ")[2], {})
    parser.EndElementHandler = lambda name: builder.end(name.rpartition(" ")[2])
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise S3Error("MalformedXML", f"the body is not XML: {error}") from None
    tree = builder.close()
    if tree.tag != root:
        raise S3Error("MalformedXML", f"the body is a {tree.tag}, not a {root}")
    return tree


def _refuse_doctype(*_: object) -> None:
    raise S3Error("MalformedXML", "a document type declaration is not accepted")
