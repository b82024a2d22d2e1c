"""The kinds of flags: what a definition holds, and how text or a TOML value becomes a value. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TRUE = {"1", "true", "yes", "on", "t", "y"}
FALSE = {"0", "false", "no", "off", "f", "n"}


@dataclass(frozen=True, slots=True)
class Flag:
    """One definition. `parse` turns text or a TOML value into the flag's value, or raises `ValueError`."""

    name: str
    kind: str
    default: Any
    help: str
    parse: Callable[[Any], Any] = field(compare=False)
    mutable: bool = False
    secret: bool = False


def parse_string(raw: Any) -> str:
    if isinstance(raw, (str, int, float)) and not isinstance(raw, bool):
        return str(raw)
    raise ValueError("expected a string")


def parse_name(raw: Any) -> str:
    """A string that names something, so it is not empty."""
    if not parse_string(raw).strip():
        raise ValueError("expected a name")
    return parse_string(raw)


def parse_integer(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, (int, str)):
        raise ValueError("expected an integer")
    try:
        return int(raw)
    except ValueError:
        raise ValueError("expected an integer") from None


def parse_float(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError("expected a number")
    try:
        value = float(raw)
    except ValueError:
        raise ValueError("expected a number") from None
    if not math.isfinite(value):
        raise ValueError("expected a number")
    return value


def at_least(parse: Callable[[Any], Any], least: float | None) -> Callable[[Any], Any]:
    """`parse` for values that are not below `least`; None: for all."""

    def bounded(raw: Any) -> Any:
        value = parse(raw)
        if least is not None and value < least:
            raise ValueError(f"expected {least:g} or more")
        return value

    return bounded


def parse_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError("expected true or false")
    return word in TRUE


def parse_list(raw: Any) -> list[str]:
    if isinstance(raw, list):
        return [str(item) for item in raw]
    return [item.strip() for item in str(raw).split(",") if item.strip()]
