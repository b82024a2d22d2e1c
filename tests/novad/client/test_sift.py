from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novad.client.logfile import TEXT
from novad.client.sift import Sieve, Wanted, level_of

STAMP = b"2026-11-23T17:01:02.123456Z "


def line(text: str, stream: str = "o") -> bytes:
    return STAMP + stream.encode() + b" " + text.encode()


def kept(wanted: Wanted, *lines: bytes) -> list[str]:
    return [item[TEXT:].decode() for item in Sieve(wanted).lines(lines)]


def test_grep_looks_at_the_text_and_not_at_the_stamp() -> None:
    wanted = Wanted(grep=re.compile(rb"17:01"))
    assert kept(wanted, line("none"), line("at 17:01")) == ["at 17:01"]
    assert [item[TEXT:] for item in Sieve(wanted).blocks([line("none") + b"\n"])] == []


def test_context_is_shown_once_around_close_matches() -> None:
    lines = [line(text) for text in ["a", "b", "HIT", "c", "HIT", "d", "e", "f", "HIT"]]
    wanted = Wanted(grep=re.compile(b"HIT"), context=1)
    assert kept(wanted, *lines) == ["b", "HIT", "c", "HIT", "d", "f", "HIT"]


def test_streams_and_exclusion_narrow_together() -> None:
    wanted = Wanted(exclude=re.compile(b"noise"), streams=b"e")
    assert kept(wanted, line("noise", "e"), line("out"), line("err", "e")) == ["err"]


def test_a_traceback_belongs_to_its_error_whatever_its_lines_say() -> None:
    lines = ["INFO start", "ERROR boom", "Traceback (most recent call last):", '  File "x.py"', "INFO next"]
    assert kept(Wanted(level=40), *map(line, lines)) == lines[1:4]


def test_a_note_of_novad_belongs_to_no_error_and_ends_none() -> None:
    note = line("started, pid 7", "n")
    lines = [line("ERROR boom"), note, line("  of it"), line("INFO next")]
    assert kept(Wanted(level=40), *lines) == ["ERROR boom", "  of it"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2026-11-23 WARNING nova.compute", 30),
        ("level=warn msg=x", 30),
        ('level="error" msg=x', 40),
        ("[critical] x", 50),
        ("an error in lower case is prose", 20),
        ("DEBUGGER is another word", 20),
        ("Traceback (most recent call last):", 40),
    ],
)
def test_levels_as_loggers_write_them(text: str, level: int) -> None:
    assert level_of(text.encode(), 20) == level


TEXTS = st.lists(st.text(alphabet="ab \x00é", max_size=6), max_size=30)
PATTERNS = st.sampled_from(["a", "ab", "a+b*", "[^a]b", r"\s+a", "b|^a", "a$", r"\bab", "(?!a)b", r"b\s*", "é"])


@given(texts=TEXTS, pattern=PATTERNS)
def test_searching_blocks_finds_exactly_what_searching_lines_finds(texts: list[str], pattern: str) -> None:
    lines = [line(text) for text in texts]
    wanted = Wanted(grep=re.compile(pattern.encode()))
    expected = list(Sieve(wanted).lines(lines))
    blocks = [b"".join(item + b"\n" for item in lines)] if lines else []
    assert list(Sieve(wanted).blocks(blocks)) == expected
