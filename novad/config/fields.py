"""The kinds of values nova.toml holds: durations, sizes, ports, signals, texts.

A *setting* (a number, a duration, a word from a list) is interpolated while it is read, with the names that are
known then; the validation context is that lookup. A *text* (an argument, a path, a URL) keeps its `${...}` until
the process it belongs to is known. Nothing is coerced: `"3"` is not a number, unless `${...}` made it.
"""

from __future__ import annotations

import math
import re
import resource
import signal
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from novad.config.interpolate import Unresolved, expand
from novad.config.suggest import did_you_mean

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
MAX_DURATION_S = 365 * 86400.0
MIN_INTERVAL_S = 0.01  # of what is done again and again, or must happen in time

SIZE = re.compile(r"([0-9]+)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, None: 1,
}  # fmt: skip

MIN_LOG_BYTES = 4096  # a file that is rotated with every line keeps nothing

PORT = re.compile(r"([0-9]{1,5})([?+!]?)")
LIMITS = tuple(name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_"))
SIGNALS = tuple(sorted(member.name.removeprefix("SIG") for member in signal.Signals))
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
TARGET = re.compile(rf"{MODULE.pattern}(:[A-Za-z_]\w*)?")
TEMPLATE = {"type": "string", "pattern": r"\$\{"}


def wrong(text: str, *help: str, fragment: str | None = None) -> PydanticCustomError:
    """The error of a value: `text` is what follows the key's name."""
    return PydanticCustomError("value", "{text}", {"text": text, "help": help, "fragment": fragment})


def shown(value: Any) -> str:
    """A value as an error names it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"' if len(value) <= 40 and value.isprintable() else "a string"
        case int() | float():
            return f"{value}" if len(f"{value}") <= 40 else "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def expected(what: str, value: Any, *help: str) -> PydanticCustomError:
    """The error of a value that is not `what`."""
    return wrong(f"expected {what}, got {shown(value)}", *help)


def _expanded(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or "${" not in value or info.context is None:
        return value
    try:
        return expand(value, info.context)
    except Unresolved as error:
        raise wrong(error.message, *error.help, fragment=error.fragment) from error


def _whole(low: int, high: int) -> Callable[[Any, ValidationInfo], int]:
    def check(value: Any, info: ValidationInfo) -> int:
        made = _expanded(value, info)
        if made is not value and re.fullmatch(r"-?[0-9]{1,10}", made):
            made = int(made)
        if not isinstance(made, int) or isinstance(made, bool):
            raise expected("a whole number", made)
        if not low <= made <= high:
            raise wrong(f"expected a number from {low} to {high}, got {shown(made)}")
        return made

    return check


def _boolean(value: Any, info: ValidationInfo) -> bool:
    made = _expanded(value, info)
    if made is not value and made in ("true", "false"):
        made = made == "true"
    if not isinstance(made, bool):
        raise expected("true or false", made)
    return made


def _interval(value: Any, info: ValidationInfo) -> float:
    made = _duration(value, info)
    if made < MIN_INTERVAL_S:
        raise wrong(f"expected at least {MIN_INTERVAL_S * 1000:g} ms, got {shown(value)}")
    return made


def _duration(value: Any, info: ValidationInfo) -> float:
    what = 'a duration such as "250ms", "10s" or "2m", or a number of seconds'
    made = _expanded(value, info)
    if isinstance(made, str):
        match = DURATION.fullmatch(made)
        if match is None:
            raise expected(what, made)
        made = float(match[1]) * SECONDS[match[2]]
    if not isinstance(made, (int, float)) or isinstance(made, bool):
        raise expected(what, made)
    if not math.isfinite(made) or not 0 <= made <= MAX_DURATION_S:
        raise wrong(f"expected a duration from 0 to 365 days, got {shown(value)}")
    return float(made)


def _size(value: Any, info: ValidationInfo) -> int:
    what = 'a size such as "10MiB" or "500kB", or a number of bytes'
    made = _expanded(value, info)
    if isinstance(made, str):
        match = SIZE.fullmatch(made)
        if match is None or len(match[1]) > 18:
            raise expected(what, made)
        made = int(match[1]) * BYTES[match[2]]
    if not isinstance(made, int) or isinstance(made, bool) or made < 0:
        raise expected(what, made)
    return made


def _log_size(value: Any, info: ValidationInfo) -> int:
    made = _size(value, info)
    if made < MIN_LOG_BYTES:
        raise wrong(f"expected at least {MIN_LOG_BYTES} bytes, got {shown(value)}")
    return made


def _limit(value: Any, info: ValidationInfo) -> int:
    made = _expanded(value, info)
    if made == "unlimited":
        return -1
    try:
        size = _size(made, info)
    except PydanticCustomError:
        raise expected('a number, a size such as "2GiB" or "unlimited"', made) from None
    if size >= 2**63:
        raise expected("a number below 2^63", made)
    return size


def _word(*words: str) -> Callable[[Any, ValidationInfo], str]:
    choices = ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'

    def check(value: Any, info: ValidationInfo) -> str:
        made = _expanded(value, info)
        if not isinstance(made, str) or made not in words:
            near = did_you_mean(made, words) if isinstance(made, str) else ()
            raise expected(choices, made, *(line for line in near if line.startswith("did")))
        return made

    return check


def _signal(value: Any, info: ValidationInfo) -> str:
    made = _expanded(value, info)
    if isinstance(made, str) and made.upper().removeprefix("SIG") in SIGNALS:
        return made.upper().removeprefix("SIG")
    near = did_you_mean(made.upper().removeprefix("SIG"), SIGNALS) if isinstance(made, str) else ()
    raise expected('a signal such as "TERM" or "INT"', made, *near)


def _port(value: Any, info: ValidationInfo) -> str:
    """Canonical text: `auto`, or the number with `?`, `+` or nothing behind it."""
    made = _expanded(value, info)
    if isinstance(made, int) and not isinstance(made, bool):
        made = str(made)
    elif isinstance(made, str) and made is value and made.isdigit():
        raise expected('a number, "auto", "8774?" or "8774+"', made, f"a fixed port is a number: {made}")
    match = PORT.fullmatch(made) if isinstance(made, str) else None
    if made != "auto" and match is None:
        raise expected('a number, "auto", "8774?" or "8774+"', value)
    if match is not None and not 1 <= int(match[1]) <= 65535:
        raise wrong(f"a port is a number from 1 to 65535, got {match[1]}")
    return str(made)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise expected("a string", value)
    if "\0" in value:
        raise wrong("a string may not hold a NUL character")
    return value


def _variable(value: Any) -> str | None:
    """An environment variable: numbers become text, `false` removes the variable (None)."""
    if value is False:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        help = ('write "true"',) if value is True else ()
        raise expected("a string, a number, or false to remove the variable", value, *help)
    return _text(value)


def _name(value: Any, info: ValidationInfo) -> str:
    return _text(_expanded(value, info))


def _command(value: Any) -> str | list[str]:
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise wrong(f"expected strings in this list, got {shown(item)}")
        words = [_text(item) for item in value]
        if not words or not words[0]:
            raise wrong("a command needs at least the program to run")
        return words
    if not isinstance(value, str):
        raise expected("a string or a list of strings", value)
    if not value.strip():
        raise wrong("a command needs at least the program to run")
    return _text(value)


def _target(value: Any, info: ValidationInfo) -> str:
    made = _expanded(value, info)
    if not isinstance(made, str) or not TARGET.fullmatch(made):
        raise expected('"module" or "module:function"', made)
    return made


def _title(value: Any, info: ValidationInfo) -> str:
    made = _name(value, info)
    if not made.strip() or not made.isprintable() or len(made) > 64:
        raise expected("a name of 1 to 64 characters", made)
    return made


def _one_or_range(value: Any) -> tuple[int, int]:
    what = "an HTTP status such as 200, or [lowest, highest]"
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or not all(isinstance(item, int) and not isinstance(item, bool) for item in pair):
        raise expected(what, value)
    if not 100 <= pair[0] <= pair[1] <= 599:
        raise wrong(f"expected {what}, from 100 to 599")
    return pair[0], pair[1]


def _names_or_all(value: Any) -> bool | list[str]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise expected("true or a list of port names", value)
    return value


def _endpoint(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise wrong(f"a port is a number from 1 to 65535, got {shown(value)}")
        return str(value)
    if not isinstance(value, str):
        raise expected('a port name, a port number or "host:port"', value)
    return _text(value)


def _schema(kind: str, *schemas: dict[str, Any]) -> WithJsonSchema:
    """The JSON schema of a field; `kind` says in words what it holds, for the manual."""
    return WithJsonSchema({**(schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}), KIND: kind})


KIND = "x-kind"
STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}


def _integer(low: int, high: int | None = None) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, **({} if high is None else {"maximum": high})}


Boolean = Annotated[bool, PlainValidator(_boolean), _schema("true or false", {"type": "boolean"}, TEMPLATE)]
Count = Annotated[int, PlainValidator(_whole(0, 1000)), _schema("a number", _integer(0, 1000), TEMPLATE)]
Positive = Annotated[int, PlainValidator(_whole(1, 10**6)), _schema("a number", _integer(1, 10**6), TEMPLATE)]
PassedNumber = Annotated[int, PlainValidator(_whole(3, 18)), _schema("a number", _integer(3, 18), TEMPLATE)]
Nice = Annotated[int, PlainValidator(_whole(-20, 19)), _schema("a number", _integer(-20, 19), TEMPLATE)]
Duration = Annotated[
    float,
    PlainValidator(_duration),
    _schema('a duration: "250ms", "10s", "2m", or seconds', {"type": "number", "minimum": 0}, STRING),
]
Interval = Annotated[
    float,
    PlainValidator(_interval),
    _schema(
        'a duration: "250ms", "10s", "2m", or seconds', {"type": "number", "minimum": MIN_INTERVAL_S}, STRING
    ),
]
LogSize = Annotated[
    int,
    PlainValidator(_log_size),
    _schema('a size: "10MiB", "500kB", or bytes', _integer(MIN_LOG_BYTES), STRING),
]
Limit = Annotated[int, PlainValidator(_limit), _schema('a number, a size or "unlimited"', _integer(0), STRING)]
Signal = Annotated[str, PlainValidator(_signal), _schema('a signal: "TERM", "INT"', STRING)]
RESTART = ("no", "on-failure", "always")
Restart = Annotated[
    str, PlainValidator(_word(*RESTART)), _schema("one of these words", {"enum": list(RESTART)}, TEMPLATE)
]
ON_CRASH = ("restart", "stop")
OnCrash = Annotated[
    str, PlainValidator(_word(*ON_CRASH)), _schema("one of these words", {"enum": list(ON_CRASH)}, TEMPLATE)
]
PortRequest = Annotated[
    str, PlainValidator(_port), _schema('a number, "auto", "8774?" or "8774+"', _integer(1, 65535), STRING)
]
Text = Annotated[str, PlainValidator(_text), _schema("a string", STRING)]
Variable = Annotated[
    str | None,
    PlainValidator(_variable),
    _schema("a string, a number or false", STRING, {"type": "number"}, {"enum": [False]}),
]
Name = Annotated[str, PlainValidator(_name), _schema("a string", STRING)]
Title = Annotated[str, PlainValidator(_title), _schema("a string", STRING)]
Command = Annotated[
    str | list[str], PlainValidator(_command), _schema("a string or a list of strings", STRING, STRINGS)
]
Target = Annotated[str, PlainValidator(_target), _schema('"module" or "module:function"', STRING)]
Status = Annotated[
    tuple[int, int],
    PlainValidator(_one_or_range),
    _schema(
        "a number, or [lowest, highest]",
        _integer(100, 599),
        {"type": "array", "items": _integer(100, 599), "minItems": 2, "maxItems": 2},
    ),
]
Listen = Annotated[
    bool | list[str],
    PlainValidator(_names_or_all),
    _schema("true, or a list of port names", {"type": "boolean"}, STRINGS),
]
Endpoint = Annotated[
    str, PlainValidator(_endpoint), _schema("a port name, a number or host:port", _integer(1, 65535), STRING)
]
