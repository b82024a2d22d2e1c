"""The parameters of an EC2 Query request: flat names with dots, read as values, lists and structures. Pure.

`Filter.1.Value.2=x` is the second value of the first filter. Lists are numbered from 1 in any order; gaps are
allowed. Every reader raises `Ec2Error` that names the parameter.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

from nova.api import errors
from nova.api.errors import Ec2Error

MAX_PARAMETERS = 5000


def parse(query: str, body: bytes) -> Params:
    """The parameters of a query string and a form body. Raises `Ec2Error`."""
    try:
        text = "&".join(part for part in (query, body.decode()) if part)
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise Ec2Error("MalformedQueryString", f"the parameters cannot be read: {error}") from None
    return Params({name: value for name, value in pairs if not name.startswith("X-Amz-")})


class Params:
    """Parameters below a prefix."""

    def __init__(self, values: Mapping[str, str], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values or any(key.startswith(name + ".") for key in self._values)

    def as_dict(self) -> dict[str, str]:
        return dict(self._values)

    def full(self, name: str) -> str:
        """The name as the client wrote it."""
        return self._prefix + name

    def text(self, name: str, default: str = "", max_length: int | None = None) -> str:
        value = self._values.get(name, default)
        if max_length is not None and len(value) > max_length:
            raise errors.invalid(self.full(name), value, f"at most {max_length} characters")
        return value

    def required(self, name: str, max_length: int | None = None) -> str:
        value = self.text(name, max_length=max_length)
        if not value:
            raise errors.missing(self.full(name))
        return value

    def number(self, name: str, default: int, lowest: int = 0, highest: int = 2**31 - 1) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        expected = f"a number from {lowest} to {highest}"
        try:
            number = int(value)
        except ValueError:
            raise errors.invalid(self.full(name), value, expected) from None
        if not lowest <= number <= highest:
            raise errors.invalid(self.full(name), value, expected)
        return number

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() not in ("true", "false", "1", "0"):
            raise errors.invalid(self.full(name), value, "true or false")
        return value.lower() in ("true", "1")

    def encoded(self, name: str, max_bytes: int) -> str:
        """A value in base64, checked and left as it is."""
        value = self.text(name)
        try:
            size = len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise errors.invalid(self.full(name), value, "base64") from None
        if size > max_bytes:
            raise errors.invalid(self.full(name), f"{size} bytes", f"at most {max_bytes} bytes")
        return value

    def texts(self, name: str) -> list[str]:
        """`Name.1`, `Name.2`, ... in order."""
        return [part.text("") for part in self._parts(name) if "" in part._values]

    def structures(self, name: str) -> list[Params]:
        """`Name.1.Field`, ... in order, each as parameters of its own."""
        return self._parts(name)

    def structure(self, name: str) -> Params:
        """`Name.Field` as parameters of its own; empty where there are none."""
        start = name + "."
        below = {key.removeprefix(start): value for key, value in self._values.items() if key.startswith(start)}
        return Params(below, self.full(start))

    def _parts(self, name: str) -> list[Params]:
        parts: dict[int, dict[str, str]] = {}
        for key, value in self.structure(name)._values.items():
            number, _, rest = key.partition(".")
            if number.isdecimal() and number.isascii() and len(number) < 6:
                parts.setdefault(int(number), {})[rest] = value
        return [Params(parts[number], self.full(f"{name}.{number}.")) for number in sorted(parts)]
