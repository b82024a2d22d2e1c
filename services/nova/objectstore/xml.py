"""S3's XML: documents in its namespace out of nested values, and the few that come in. Pure.

What comes in is read without a document type: entities are how a small body becomes a large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from nova import xmlwriter
from nova.objectstore.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def document(name: str, value: Mapping[str, Any], namespace: str | None = NAMESPACE) -> bytes:
    return xmlwriter.document(name, value, namespace)


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
