"""The manual of nova.toml and its JSON schema, both taken from the model.

The schema serves editors (taplo: `#:schema ./.novad/nova.schema.json`); it helps typing and knows less than the
compiler. Keywords are those of JSON schema draft 7, which taplo reads.
"""

from __future__ import annotations

import copy
import functools
import textwrap
from collections.abc import Iterator
from typing import Any

from novad.config.fields import KIND, STRING, STRINGS
from novad.config.model import File, Table, model_at
from novad.config.position import Path
from novad.config.suggest import did_you_mean
from novad.core.errors import UsageError

WIDTH = 88

# What some keys look like in use.
EXAMPLES = {
    "services.NAME.after": 'after = ["broker", "db-sync:done", "scheduler:started"]',
    "services.NAME.backoff": 'backoff = { min = "0.25s", max = "10s", reset_after = "10s" }',
    "services.NAME.command": 'command = ["nova-api", "--port", "${port.http}"]',
    "services.NAME.env": 'env = { LOG_LEVEL = "debug", PATH = "${dir}/bin:${env.PATH}" }',
    "services.NAME.health": 'health = { http = "/healthz", period = "5s", failures = 3 }',
    "services.NAME.limits": 'limits = { nofile = 4096, core = "unlimited" }',
    "services.NAME.logs": 'logs = { attach = false, max = "20MiB", keep = 5 }',
    "services.NAME.ports": 'ports = { http = 8774, metadata = "auto", console = "6080+" }',
    "services.NAME.python": 'python = "nova.launch:main"',
    "services.NAME.ready": 'ready = { http = "/healthz", status = [200, 299] }',
    "services.NAME.stop": 'stop = { signal = "INT", timeout = "30s" }',
    "services.NAME.watch": 'watch = ["src/**/*.py"]',
    "groups": 'groups = { control = ["api", "scheduler"] }',
    "novad.include": 'include = ["etc/novad.d/*.toml"]',
    "profile": '[profile.ci.services.api]\nports = { http = "auto" }',
}


def manual(key: str) -> str:
    """The manual entry of a key: `after`, `ready.http`, `services.api.ready.http`, `novad.include`.

    Raises `UsageError` for a key that does not exist.
    """
    entries = {_name(path): (path, field) for path, field in _entries(File, ())}
    for name in _readings(key.split(".")):
        if name in entries:
            return _entry(*entries[name])
    matching = [name for name in entries if name.endswith(f".{key}")]
    if matching:
        return "\n\n".join(_entry(*entries[name]) for name in matching)
    known = {part for name in entries for part in (name, name.removeprefix("services.NAME."))}
    hint = did_you_mean(key, sorted(known)) or ("novad check --schema lists all keys",)
    raise UsageError(f"nova.toml has no key `{key}`", *hint)


def _readings(parts: list[str]) -> Iterator[str]:
    """What a user's key may mean, the likeliest first: names chosen by users become NAME, overlays fall away."""
    yield ".".join(parts)
    match parts:
        case ["profile", _]:
            yield "profile"
        case ["profile", _, *rest]:
            yield ".".join(["profile.NAME", *rest])
            yield from _readings(rest)
        case ["defaults", *rest]:
            yield from _readings(rest)
        case ["services", _]:
            yield f"services.NAME.{parts[1]}"
            yield "services"
        case ["services", _, *rest]:
            yield ".".join(["services.NAME", *rest])
            yield ".".join(["services.NAME", *parts[1:]])
        case _:
            for prefix in ("services.NAME", "novad", "profile.NAME"):
                yield ".".join([prefix, *parts])


def keys() -> list[str]:
    """Every key of nova.toml, such as `services.NAME.ready.http`, for completion and the reference."""
    return [_name(path) for path, _ in _entries(File, ())]


def page() -> str:
    """docs/nova-toml.md: every key with its kind, its default and its manual entry."""
    lines = [PAGE_HEAD]
    for path, field in _entries(File, ()):
        lines += [f"## `{_name(path)}`", "", f"*{_kind(field).replace('|', 'or')}*{_default(field)}", ""]
        lines += [textwrap.fill(field["description"], 118), ""]
        if _name(path) in EXAMPLES:
            lines += ["```toml", EXAMPLES[_name(path)], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


PAGE_HEAD = """\
# nova.toml

Every key; this page is made by `scripts/docs` from the model that the compiler uses, and `novad check --explain KEY`
prints the same entries. NAME stands for a name of yours; `[defaults]` takes the keys of a service, and a
`[profile.NAME]` those of the whole file.
"""


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, [], {}, "") else f", default `{_toml(default)}`"


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _entries(table: type[Table], above: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All keys below a table with the JSON schema of each."""
    properties = _definition(table)["properties"]
    for key in table.model_fields:
        path = (*above, key)
        yield path, properties[key]
        named = (*path, "NAME") if key in ("services", "profile") else path
        inner = model_at(named)
        # [defaults] and overlays hold the same keys again; the manual tells each once.
        if inner is not None and key != "defaults" and above[:1] != ("profile",):
            yield from _entries(inner, named)


def _definition(table: type[Table]) -> dict[str, Any]:
    whole = _schema()
    found = whole if table is File else whole["$defs"][table.__name__]
    assert isinstance(found, dict)
    return found


def _entry(path: Path, field: dict[str, Any]) -> str:
    head = f"{_name(path)}   {_kind(field)}"
    if _default(field):
        head += f"   default: {_toml(field['default'])}"
    lines = [head, textwrap.indent(textwrap.fill(field["description"], WIDTH - 4), "    ")]
    if _name(path) in EXAMPLES:
        lines += ["", textwrap.indent(EXAMPLES[_name(path)], "    ")]
    inner = model_at((*path, "NAME") if path[-1] in ("services", "profile") else path)
    if inner is not None:
        properties = _definition(inner)["properties"]
        width = max(map(len, properties))
        lines.append("")
        for key, nested in properties.items():
            hanging = " " * (width + 7)
            text = f"    {key:{width}}   {nested['description']}"
            lines.append(textwrap.fill(text, WIDTH, subsequent_indent=hanging))
    return "\n".join(lines)


def _kind(field: dict[str, Any]) -> str:
    if KIND in field:
        words = next((option["enum"] for option in field.get("anyOf", ()) if "enum" in option), None)
        choices = " | ".join(_toml(word) for word in words) if words and False not in words else ""
        return choices or str(field[KIND])
    if field.get("type") == "array":
        return "a list of strings"
    return "a table"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:g} s"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return str(value)


def schema() -> dict[str, Any]:
    """The JSON schema of nova.toml."""
    return copy.deepcopy(_schema())


@functools.cache
def _schema() -> dict[str, Any]:
    made = File.model_json_schema()
    _tidy(made)
    for table in (made, made["$defs"]["Profile"]):
        service = table["properties"]["services"]["additionalProperties"]
        table["properties"]["services"]["additionalProperties"] = {"anyOf": [STRING, service]}
    watch = made["$defs"]["Service"]["properties"]["watch"]
    watch["anyOf"] = [STRINGS, {"$ref": watch.pop("$ref")}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **made, "title": "nova.toml"}


def _tidy(node: Any) -> None:
    """Takes out what a TOML file cannot hold (null) and names that say nothing."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
        return
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", 0) is None:
        del node["default"]
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options.remove({"type": "null"})
        if len(options) == 1:
            del node["anyOf"]
            node.update(options[0])
    for inner in node.values():
        _tidy(inner)
