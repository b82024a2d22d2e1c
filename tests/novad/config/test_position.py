"""The scanner agrees with the parser about every key and value of any TOML text."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.config.position import Path, positions


def paths(value: Any, above: Path = ()) -> list[Path]:
    found = []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += [(*above, key), *paths(inner, (*above, key))]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += [(*above, index), *paths(inner, (*above, index))]
    return found


def at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def check(text: str) -> None:
    """Every path is found, its key reads as that key, and its value parses to the same value."""
    data = tomli.loads(text)
    places = positions(text)
    assert set(places) == set(paths(data))
    for path, place in places.items():
        name, value = path[-1], at(data, path)
        if isinstance(name, str):
            assert tomli.loads(f"{text[place.key.start : place.key.end]} = 0") == {name: 0}
        if not isinstance(value, (dict, list)):
            written = text[place.value.start : place.value.end]
            assert tomli.loads(f"x = {written}") == {"x": value} or value != value  # not a number


DOCUMENTS = [
    'a = 1\nb.c = "x"\n"d e".\'f"g\' = 2.5 # c = 3\n',
    "[a]\nb = [1, [2, 3], # ]\n 4,\n]\n[a.c]\nd = true\n",
    "[[p]]\nn = 1\n[p.q]\nr = 1\n[[p.s]]\nt = 1\n[[p.s]]\nt = 2\n[[p]]\nn = 2\n[[p.s]]\nt = 3\n",
    'x = { a = 1, b = { "c}" = "]" , d = [ { e = 1 }, { e = 2 } ] } }\ny = 1979-05-27 07:32:00 # z\n',
    's = """one\n "two" \\""" three\n four"""""\nt = \'\'\'raw \\ \'\'x\n\'\'\'\nu = ""\nv = \'\'\nw = """"""\n',
    "a.b = 1\na.c.d = 2\n[e]\nf.g = 3\n[e.h]\ni = 4\n",
    "[a.b.c]\nx = 1\n[a]\ny = 2\n",
    '  [ a . "b" ]  # c\n  k  =  [ ]  \n l = {}\n[z]',
    "x = { a = 1,\n b = 2, # why\n}\n",
    "",
    "# nothing\n\n",
    "bare-key_1 = +inf\n1 = 1_000\n2.3 = 0x1F\n",
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_every_key_and_value_of_a_document_is_found(text: str) -> None:
    check(text)


def test_a_header_spans_its_brackets_and_its_last_name() -> None:
    text = 'x = 1\n[ services."a b" ]\n'
    place = positions(text)[("services", "a b")]
    assert text[place.key.start : place.key.end] == '"a b"'
    assert text[place.value.start : place.value.end] == '[ services."a b" ]'


def test_an_absurdly_nested_value_is_refused_rather_than_overflowing_the_stack() -> None:
    with pytest.raises(RecursionError):
        positions("x = " + "[" * 300 + "]" * 300)


# Texts that hypothesis builds: each value in one of the ways it can be written.
keys = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), max_size=5
)


def written_key(key: str) -> str:
    import re

    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


strings = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
blank = st.sampled_from(["", " ", "  ", "\t"])
breaks = st.sampled_from(["", " ", "\n", " # comment ] } \" '\n", "\n\n"])


@st.composite
def string(draw: st.DrawFn) -> str:
    value = draw(strings)
    kind = draw(st.integers(0, 3))
    if kind == 0 and "'" not in value:
        return f"'{value}'"
    if kind == 1 and "'''" not in value and not value.endswith("'"):
        return f"'''\n{value}\n{value}'''"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if kind == 2:
        return f'"""{escaped}\n"" {escaped}"""'
    return f'"{escaped}"'


scalars = (
    st.integers(-(2**60), 2**60).map(str)
    | st.booleans().map(lambda value: "true" if value else "false")
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.datetimes().map(lambda value: value.replace(microsecond=0).isoformat(" "))
    | string()
)


@st.composite
def array(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=4))
    pieces = [f"{draw(breaks)}{item}{draw(breaks)}" for item in items]
    comma = draw(st.sampled_from(["", ","])) if items else ""
    return f"[{','.join(pieces)}{comma}{draw(breaks)}]"


@st.composite
def inline_table(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    table = draw(st.dictionaries(keys, inner, max_size=4))
    pairs = [f"{draw(blank)}{written_key(key)}{draw(blank)}={draw(blank)}{text}" for key, text in table.items()]
    return "{" + ",".join(pairs) + draw(blank) + "}"


values = st.recursive(scalars, lambda inner: array(inner) | inline_table(inner), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.integers(0, 4))):
        if number:
            name = ".".join(written_key(key) for key in draw(st.lists(keys, min_size=1, max_size=3)))
            lines.append(f"[[{name}]]" if draw(st.booleans()) else f"[{name}]")
        for key in draw(st.lists(keys, max_size=3, unique=True)):
            dotted = ".".join([written_key(key), *map(written_key, draw(st.lists(keys, max_size=2)))])
            lines.append(f"{draw(blank)}{dotted}{draw(blank)}={draw(blank)}{draw(values)}")
        lines.append(draw(breaks))
    return "\n".join(lines)


@settings(max_examples=300, deadline=None)
@given(documents())
def test_the_scanner_finds_what_the_parser_finds(text: str) -> None:
    try:
        tomli.loads(text)
    except tomli.TOMLDecodeError:
        return  # two tables of one name, for example
    check(text)


def test_the_generator_mostly_writes_valid_documents() -> None:
    """The property above would hold of nothing if every document were refused."""
    valid = []

    @settings(max_examples=100, deadline=None, database=None)
    @given(documents())
    def collect(text: str) -> None:
        try:
            valid.append(bool(tomli.loads(text)))
        except tomli.TOMLDecodeError:
            valid.append(False)

    collect()
    assert sum(valid) > 30
