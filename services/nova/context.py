"""Who asks, and for which request: the value that travels with every call.

`current()` is the context of the greenlet that runs; the log adds its request id to every line. A context is
immutable, so that handing it to another greenlet or another process never shares state.
"""

from __future__ import annotations

import contextvars
import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_current: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar("nova_context", default=None)


def new_request_id() -> str:
    """20 characters, as long as Nova's."""
    return f"req-{uuid.uuid4().hex[:16]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`timestamp` is when the request began (ISO 8601, UTC); `roles` are names."""

    user_id: str | None = None
    project_id: str | None = None
    is_admin: bool = False
    request_id: str = field(default_factory=new_request_id)
    remote_address: str | None = None
    roles: tuple[str, ...] = ()
    timestamp: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", tuple(self.roles))
        if not self.request_id:
            object.__setattr__(self, "request_id", new_request_id())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is the inverse."""
        values = {name: getattr(self, name) for name in _FIELDS}
        values["roles"] = list(self.roles)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RequestContext:
        """Unknown keys are ignored: a newer peer may send more than this version knows."""
        return cls(**{key: value for key, value in values.items() if key in _FIELDS})

    def elevated(self) -> RequestContext:
        """The same request with an administrator's rights."""
        return dataclasses.replace(self, is_admin=True)


# Once, not with every message.
_FIELDS = {item.name: None for item in dataclasses.fields(RequestContext)}


def get_admin_context() -> RequestContext:
    """A new request of the service itself."""
    return RequestContext(is_admin=True)


def current() -> RequestContext | None:
    """The context in which this greenlet runs, or None outside a request."""
    return _current.get()


class use:
    """`with use(context):` makes it the current one of this greenlet. A class: a generator costs twice the time."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: RequestContext | None) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *exc: object) -> None:
        _current.reset(self._token)
