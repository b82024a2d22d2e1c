"""The frames of the control socket: one JSON object a line.

    Request  {"v": 1, "id": 7, "verb": "status", "args": {...}}
    Reply    {"id": 7, "result": {...}}
    Error    {"id": 7, "error": {"code": "no_such_service", "message": "...", "hint": "..."}}
    Event    {"id": 7, "event": {...}}           any number, after the reply to `subscribe` number 7

Pure: bytes in, values out. `feed` takes whatever a socket gave and returns whole frames; a frame over
`MAX_FRAME` bytes, bad JSON or a bad shape raises `WireError`, and the connection is then useless.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Never

from novad.core.errors import WireError

PROTOCOL = 1
MAX_FRAME = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    id: int
    verb: str
    args: dict[str, Any] = field(default_factory=dict)
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Reply:
    id: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Error:
    id: int
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    event: dict[str, Any]


Frame = Request | Reply | Error | Event


def encode(frame: Frame) -> bytes:
    """One line with its newline. Raises `WireError` when it would be longer than `MAX_FRAME`."""
    data: dict[str, Any]
    match frame:
        case Request(id, verb, args, v):
            data = {"v": v, "id": id, "verb": verb, "args": args}
        case Reply(id, result):
            data = {"id": id, "result": result}
        case Error(id, code, message, hint):
            data = {"id": id, "error": {"code": code, "message": message, "hint": hint}}
        case Event(id, event):
            data = {"id": id, "event": event}
    line = json.dumps(data, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_FRAME:
        raise WireError(f"a frame of {len(line)} bytes is over the limit of {MAX_FRAME}")
    return line


def decode(line: bytes) -> Frame:
    """The frame of one line. Raises `WireError`."""
    try:
        data = json.loads(line, parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("id"), int):
        raise WireError("a frame is an object with a numeric id")
    if isinstance(data.get("verb"), str):
        args = data.get("args", {})
        if not isinstance(args, dict):
            raise WireError("args must be an object")
        version = data.get("v")
        return Request(data["id"], data["verb"], args, version if isinstance(version, int) else 0)
    if isinstance(data.get("result"), dict):
        return Reply(data["id"], data["result"])
    if isinstance(data.get("event"), dict):
        return Event(data["id"], data["event"])
    error_data = data.get("error")
    if isinstance(error_data, dict):
        return Error(
            data["id"],
            str(error_data.get("code", "failed")),
            str(error_data.get("message", "")),
            str(error_data.get("hint", "")),
        )
    raise WireError("a frame holds a verb, a result, an error or an event")


def _number(text: str) -> float:
    """Raises `ValueError` for what is too large to be a number: no clock could wait for it."""
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> Never:
    raise ValueError(f"{text:.20} is no number")


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._tail = bytearray()

    @property
    def has_half_frame(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._tail)

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are complete with `data`. Raises `WireError`."""
        # What is here already holds no newline and is not searched again: a client may send byte by byte.
        head, newline, rest = data.partition(b"\n")
        self._tail += head
        lines: list[bytes] = []
        if newline:
            *others, last = rest.split(b"\n")
            lines = [bytes(self._tail), *others]
            self._tail = bytearray(last)
        if len(self._tail) > MAX_FRAME or any(len(line) > MAX_FRAME for line in lines):
            raise WireError(f"a frame is over the limit of {MAX_FRAME} bytes")
        return [decode(line) for line in lines if line.strip()]
