"""The envelope of a call: a request or reply and its bytes.

Pure. JSON and nothing else, in Nova's shape, so that a message can be read in a queue and made by hand:

    request  {"method": m, "args": {...}, "_context_user_id": ..., "_unique_id": u, and for a call
              "_msg_id": u, "_timeout": s, "_sent": t, "_deadline": t, "_depth": n, "_attempt": n}
    reply    {"result": v} | {"failure": [type, value, traceback, attributes]} | {"alive": true}
             {"result": v, "more": n} ... {"ending": n}        a method that yields, item by item

`_unique_id` stays the same however often a message is sent. `_timeout` is the silence in seconds that the caller
bears, `_deadline` the moment (seconds since the epoch) after which nobody waits any more, `_depth` how many calls
this one is nested in, `_attempt` how often it may have begun before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nova.rpc.errors import MalformedMessage

CONTENT_TYPE = "application/json"
CONTEXT_PREFIX = "_context_"
_PREFIX_SIZE = len(CONTEXT_PREFIX)

_NUMBERS = (int, float)  # and not bool, which is an int to isinstance
ALIVE = b'{"alive":true}'

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decoder = json.JSONDecoder()


@dataclass(slots=True)
class Request:
    """`msg_id` is None for a cast: nobody waits for its reply. Times are seconds since the epoch."""

    method: str
    args: dict[str, Any]
    context: dict[str, Any] = field(default_factory=dict)
    unique_id: str = ""
    msg_id: str | None = None
    timeout_s: float | None = None
    sent: float | None = None
    deadline: float | None = None
    depth: int = 0
    attempt: int = 0

    def is_stale(self, now: float, redelivered: bool) -> bool:
        """Nobody waits for the reply any more, so the call need not run.

        The caller of a redelivered call may have heard that it was alive: only the deadline counts for it.
        """
        if self.deadline is not None and now > self.deadline:
            return True
        if redelivered or self.attempt or self.timeout_s is None or self.sent is None:
            return False
        return now > self.sent + self.timeout_s


def encode_request(request: Request) -> bytes:
    """Raises `TypeError` or `ValueError` for arguments that JSON cannot carry."""
    message: dict[str, Any] = {"method": request.method, "args": request.args, "_unique_id": request.unique_id}
    if request.msg_id is not None:
        message["_msg_id"] = request.msg_id
        message["_timeout"] = request.timeout_s
        message["_sent"] = request.sent
    if request.deadline is not None:
        message["_deadline"] = request.deadline
    if request.depth:
        message["_depth"] = request.depth
    if request.attempt:
        message["_attempt"] = request.attempt
    for key, value in request.context.items():
        message[CONTEXT_PREFIX + key] = value
    return _encode(message).encode()


def decode_request(body: bytes) -> Request:
    """Raises `MalformedMessage`."""
    message = _decode_object(body)
    get = message.get
    method, args = get("method"), get("args", {})
    if not isinstance(method, str) or not isinstance(args, dict):
        raise MalformedMessage("a request needs a method (text) and args (an object)")
    unique_id, msg_id = get("_unique_id", ""), get("_msg_id")
    if not isinstance(unique_id, str) or not (msg_id is None or isinstance(msg_id, str)):
        raise MalformedMessage("_unique_id and _msg_id must be text")
    times = get("_timeout"), get("_sent"), get("_deadline")
    counts = get("_depth", 0), get("_attempt", 0)
    for number in times:
        if number is not None and type(number) not in _NUMBERS:
            raise MalformedMessage("_timeout, _sent and _deadline must be numbers")
    if type(counts[0]) is not int or type(counts[1]) is not int:
        raise MalformedMessage("_depth and _attempt must be whole numbers")
    context = {key[_PREFIX_SIZE:]: message[key] for key in message if key.startswith(CONTEXT_PREFIX)}
    return Request(method, args, context, unique_id, msg_id, *times, *counts)


def encode_result(value: Any, more: int | None = None) -> bytes:
    """`more` numbers an item of a method that yields. Raises `TypeError` or `ValueError` as `encode_request`."""
    reply = {"result": value} if more is None else {"result": value, "more": more}
    return _encode(reply).encode()


def encode_ending(count: int) -> bytes:
    """What follows the `count` items of a method that yields."""
    return b'{"ending":%d}' % count


def encode_failure(failure: list[Any]) -> bytes:
    """`failure`: [type, value, traceback, attributes]."""
    return _encode({"failure": failure}).encode()


def decode_reply(body: bytes) -> dict[str, Any]:
    """An object with one of `result`, `failure`, `alive`, `ending`. Raises `MalformedMessage`."""
    reply = _decode_object(body)
    if "result" in reply or "alive" in reply or "ending" in reply:
        return reply
    failure = reply.get("failure")
    if not isinstance(failure, list) or len(failure) < 3:
        raise MalformedMessage("a reply needs a result or a failure")
    return reply


def _decode_object(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        value, end = _decoder.raw_decode(text) if text.startswith("{") else (None, -1)
        if end != len(text):
            value = _decoder.decode(text)  # white space around it; to look for that costs as much again
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedMessage(f"a JSON object was expected, not {type(value).__name__}")
    return value
