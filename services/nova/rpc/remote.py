"""An exception's way from the service to the caller.

A caller sees the class that was raised only where its module is on the allow-list: a service must not be able to
make its callers import and construct what it likes. Everything else is a `RemoteError`, which carries the same.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Collection
from typing import Any

from nova.rpc.errors import RemoteError

_PLAIN = (str, int, float, bool, type(None))


def describe(error: BaseException) -> list[Any]:
    """[type, value, traceback, attributes] of an exception; of a RemoteError that which it carries on."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, RemoteError):
        return [error.exc_type, error.value, f"{error.traceback}\n{text}", {}]
    attributes = {key: value for key, value in vars(error).items() if isinstance(value, _PLAIN)}
    return [type_name(type(error)), str(error), text, attributes]


def type_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def rebuild(failure: list[Any], allowed_modules: Collection[str]) -> Exception:
    """The exception to raise at the caller, a RemoteError as its cause where it is not one itself."""
    exc_type, value, text = (str(item) for item in failure[:3])
    remote = RemoteError(exc_type, value, text)
    cls = _find_class(exc_type, allowed_modules)
    if cls is None or issubclass(cls, RemoteError):
        return remote
    # The constructor may want anything; what an exception is, is its class, its arguments and its attributes.
    error = cls.__new__(cls)
    error.args = (value,)
    if len(failure) > 3 and isinstance(failure[3], dict):
        vars(error).update(failure[3])
    error.__cause__ = remote
    return error


def _find_class(exc_type: str, allowed_modules: Collection[str]) -> type[Exception] | None:
    module_name, _, name = exc_type.rpartition(".")
    if module_name not in allowed_modules:
        return None
    cls = getattr(sys.modules.get(module_name), name, None)
    return cls if isinstance(cls, type) and issubclass(cls, Exception) else None
