"""What another tool's file says, as services of nova.toml, with a remark for everything that was not carried. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# What only a shell can read: then the command needs one.
NEEDS_SHELL = re.compile(r"[$`&|;<>()*?~{}\n#]|^\s*\w+=")
NAME = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Draft:
    """One service. `keys` are keys of nova.toml in the order in which they are written."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Carried:
    """All services of one file, variables for all of them, and what could not be carried over."""

    source: str
    services: tuple[Draft, ...]
    env: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def service_name(name: str) -> str:
    """`name` as nova.toml allows it."""
    return NAME.sub("-", name.lower()).strip("-._") or "service"


def literal(text: str) -> str:
    """`text` so that novad leaves it alone: a `${` of another tool is none of ours."""
    return text.replace("${", "$${")


def command_keys(text: str) -> dict[str, Any]:
    """A command line as its tool gave it to a shell; the shell is left out where it has nothing to do."""
    stripped = text.strip()
    return {"command": literal(stripped), **({"shell": True} if NEEDS_SHELL.search(stripped) else {})}


def environment(value: Any, spelled: Callable[[str], str] = literal) -> dict[str, str]:
    """`{A: 1}` or `["A=1"]`; a name without a value is inherited, and left out. `spelled` turns a text into ours."""
    pairs: Iterable[tuple[str, Any]]
    if isinstance(value, Mapping):
        pairs = value.items()
    else:
        pairs = (str(item).partition("=")[::2] for item in value or () if "=" in str(item))
    return {str(name): spelled(scalar(item)) for name, item in pairs if item is not None}


def scalar(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def settled(carried: Carried) -> Carried:
    """Dependencies on what was not carried are dropped, with a remark."""
    names = {draft.name for draft in carried.services}
    services, remarks = [], list(carried.remarks)
    for draft in carried.services:
        after = draft.keys.get("after", [])
        kept = [item for item in after if item.partition(":")[0] in names]
        remarks += [
            f"{draft.name}: does not wait for {item}, which is not here" for item in after if item not in kept
        ]
        keys = {key: value for key, value in draft.keys.items() if key != "after"} | (
            {"after": kept} if kept else {}
        )
        services.append(replace(draft, keys=keys))
    return replace(carried, services=tuple(services), remarks=tuple(remarks))


# --- nova.toml ----------------------------------------------------------------------------------------------


def toml(carried: Carried) -> str:
    """The text of nova.toml, with the remarks as comments at the top."""
    lines = [f"# From {carried.source}. `novad up` starts it, `novad check --explain KEY` explains a key."]
    if carried.remarks:
        lines += ["#", "# Not carried over:", *(f"#   {' '.join(remark.split())}" for remark in carried.remarks)]
    if carried.env:
        lines += ["", "[env]", *(f"{key(name)} = {value(item)}" for name, item in carried.env.items())]
    for draft in carried.services:
        lines += ["", f"[services.{key(draft.name)}]"]
        lines += [f"{key(name)} = {value(item)}" for name, item in draft.keys.items()]
    return "\n".join(lines) + "\n"


def key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value(name)


def value(item: Any) -> str:
    """A TOML value: strings, numbers, booleans, lists and inline tables."""
    match item:
        case bool():
            return "true" if item else "false"
        case str():
            # JSON's escapes are TOML's, except that TOML wants DEL escaped as well.
            return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(value, item))}]"
        case dict():
            return f"{{ {', '.join(f'{key(str(name))} = {value(inner)}' for name, inner in item.items())} }}"
        case _:
            return str(item)
