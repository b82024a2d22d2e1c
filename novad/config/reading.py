"""A tree of values -> the model of nova.toml, or every fault that keeps it from being one, in our words."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from novad.config.fields import shown
from novad.config.interpolate import Lookup
from novad.config.model import File, Novad, Service, model_at
from novad.config.position import Path
from novad.config.report import Fault
from novad.config.suggest import for_key
from novad.config.tree import Node, plain


def read(node: Node, lookup: Lookup | None) -> tuple[File | None, list[tuple[Path, Fault]]]:
    """The model of a file's tree, or all that keeps it from being one, each with the path it is about."""
    try:
        return File.model_validate(plain(node), context=lookup), []
    except ValidationError as error:
        return None, [_fault(node, detail) for detail in error.errors(include_url=False)]


def read_service(node: Node, lookup: Lookup | None) -> Service:
    """The model of a service's tree. Raises `ValidationError`; trees that `read` accepted cannot."""
    return Service.model_validate(plain(node), context=lookup)


def read_novad(node: Node | None, lookup: Lookup | None) -> Novad:
    """The model of [novad], of an empty one where there is none. Raises as `read_service`."""
    return Novad.model_validate(plain(node) if node else {}, context=lookup)


# What pydantic finds by itself, in our words.
EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "list_type": "a list",
    "model_type": "a table",
    "string_type": "a string",
}


def _fault(node: Node, detail: Any) -> tuple[Path, Fault]:
    path: Path = tuple(detail["loc"])
    while path and node.get(*path) is None:
        path = path[:-1]  # the parts of a union that pydantic names, such as `list[...]`
    at = node.nearest(path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return path, _unknown_key(node, path)
    if kind == "value":
        context = detail["ctx"]
        text, help, fragment = context["text"], context["help"], context["fragment"]
    else:
        text, help = _wrong_shape(path, kind, plain(at))
        fragment = None
    span = at.text_at(fragment)
    return path, Fault(f"{dotted(path)}: {text}", at.origin.source, span, tuple(help))


# How a table or list is written, for those who wrote something else.
SHAPES = {
    "ready": "ready = { notify = true }",
    "health": 'health = { http = "/healthz" }',
    "env": 'env = { NAME = "value" }',
    "ports": "ports = { http = 8774 }",
    "stop": 'stop = { signal = "TERM", timeout = "10s" }',
    "services": "[services.NAME]",
    "profile": "[profile.NAME]",
}


def _wrong_shape(path: Path, kind: str, value: Any) -> tuple[str, tuple[str, ...]]:
    """The sentence and help for a value that is no table, or no list, where one must be."""
    expected = EXPECTED.get(kind, "another value")
    key = str(path[-1]) if path else ""
    if path[-2:-1] == ("services",):
        return f"expected a table, or a string that is its command, got {shown(value)}", ()
    help: tuple[str, ...] = ()
    if kind == "list_type" and isinstance(value, str) and value.isprintable():
        help = (f'write a list: {key} = ["{value}"]',)
    elif key in SHAPES:
        help = (f"write {SHAPES[key]}",)
    return f"expected {expected}, got {shown(value)}", help


def _unknown_key(node: Node, path: Path) -> Fault:
    *above, key = path
    table = model_at(tuple(above))
    known = list(table.model_fields) if table else []
    where = f" in [{dotted(tuple(above))}]" if above else ""
    return node.nearest(path).origin.fault(f"unknown key `{key}`{where}", *for_key(str(key), known), on_key=True)


def dotted(path: Path) -> str:
    """A path as it is written in TOML, with array indices in brackets."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
