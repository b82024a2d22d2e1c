"""The manual and the schema tell what the compiler accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli

from novad.config.manual import EXAMPLES, keys, manual, schema
from novad.core.errors import UsageError
from tests.novad.config.compiling import faults

GOOD = Path(__file__).parent / "good"


@pytest.mark.parametrize(
    ("key", "first_line"),
    [
        ("after", "services.NAME.after   a list of strings"),
        ("services.api.after", "services.NAME.after   a list of strings"),
        ("services.after", "services.NAME.after   a list of strings"),
        ("defaults.after", "services.NAME.after   a list of strings"),
        ("profile.ci.services.api.after", "services.NAME.after   a list of strings"),
        (
            "stop.timeout",
            'services.NAME.stop.timeout   a duration: "250ms", "10s", "2m", or seconds   default: 10 s',
        ),
        ("restart", 'services.NAME.restart   "no" | "on-failure" | "always"'),
        ("include", "novad.include   a list of strings"),
        ("skip", "profile.NAME.skip   a list of strings"),
        ("env", "env   a table"),
        ("services.api", "services   a table"),
        ("profile.ci", "profile   a table"),
        (
            "debounce",
            'services.NAME.watch.debounce   a duration: "250ms", "10s", "2m", or seconds   default: 0.3 s',
        ),
    ],
)
def test_a_key_is_found_however_it_is_named(key: str, first_line: str) -> None:
    assert manual(key).split("\n")[0] == first_line


def test_a_table_lists_its_keys() -> None:
    assert re.search(r"^    signal +The signal", manual("stop"), re.MULTILINE)


def test_an_unknown_key_gets_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        manual("afer")
    assert (caught.value.exit_code, caught.value.hint) == (2, "did you mean `after`?")


def test_every_key_has_an_entry_that_fits_the_screen() -> None:
    assert len(keys()) > 70
    for key in keys():
        entry = manual(key)
        assert entry.startswith(f"{key}   ")
        assert all(len(line) <= 100 for line in entry.split("\n"))


@pytest.mark.parametrize(("key", "example"), EXAMPLES.items())
def test_every_example_compiles(key: str, example: str, tmp_path: Path) -> None:
    base = 'command = "x"\n' if key.rpartition(".")[2] not in ("command", "python") else ""
    ports = "ports = { http = 8774 }\n" if "ports" not in example else ""
    others = '[services]\nbroker = "b"\nscheduler = "s"\ndb-sync = { command = "d", oneshot = true }\n'
    table = {"groups": "", "profile": "", "novad.include": "[novad]\n"}.get(key)
    if table is None:
        text = f"{others}[services.api]\n{base}{ports}{example}\n"
    else:
        text = f"{table}{example}\n{others}api = 'x'\n"
    assert faults(tmp_path, text) == []


def violations(value: Any, rule: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """What a value breaks of the parts of JSON schema that ours uses."""
    if "$ref" in rule:
        rule = {
            **root["$defs"][rule["$ref"].rpartition("/")[2]],
            **{k: v for k, v in rule.items() if k != "$ref"},
        }
    if "anyOf" in rule:
        options = [violations(value, option, root, where) for option in rule["anyOf"]]
        return [] if [] in options else [f"{where}: no option fits"]
    if "enum" in rule:
        return [] if value in rule["enum"] else [f"{where}: not one of {rule['enum']}"]
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    kind = rule["type"]
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: not {kind}"]
    found = []
    if kind == "array":
        for index, item in enumerate(value):
            found += violations(item, rule["items"], root, f"{where}[{index}]")
    if kind == "object":
        other = rule.get("additionalProperties")
        for key, item in value.items():
            inner = rule.get("properties", {}).get(key, other)
            found += violations(item, inner, root, f"{where}.{key}") if inner else [f"{where}.{key}: unknown"]
    if kind in ("integer", "number") and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        found.append(f"{where}: out of range")
    if "pattern" in rule and not re.search(rule["pattern"], value):
        found.append(f"{where}: does not match")
    return found


def check(text: str) -> list[str]:
    whole = schema()
    return violations(tomli.loads(text), whole, whole)


@pytest.mark.parametrize("path", sorted(GOOD.glob("*.toml")), ids=lambda path: path.stem)
def test_an_editor_accepts_a_good_file(path: Path) -> None:
    assert check(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("[services]\napi = 5", ".services.api: no option fits"),
        ("[novad]\nnme = 'x'", ".novad.nme: unknown"),
        ("[defaults]\nnice = 99", ".defaults.nice: no option fits"),
        ("[defaults]\nrestart = 'never'", ".defaults.restart: no option fits"),
        ("[defaults]\nwatch = 5", ".defaults.watch: no option fits"),
        ("[groups]\na = 'b'", ".groups.a: not array"),
    ],
)
def test_an_editor_marks_a_wrong_file(text: str, violation: str) -> None:
    assert check(text) == [violation]


def test_the_schema_describes_every_key_and_knows_no_null() -> None:
    text = str(schema())
    assert "'null'" not in text
    for table in schema()["$defs"].values():
        assert table["additionalProperties"] is False
        assert all(field.get("description") for field in table["properties"].values())
