"""docs/specification.md names tests; each of them exists, and every promise has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "specification.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)))


def exists(path: str, name: str) -> bool:
    files = [TESTS / path, TESTS / "services" / path]
    return any(file.is_file() and re.search(rf"def {name}\(", file.read_text()) for file in files)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_the_specification_names_exists(path: str, name: str) -> None:
    assert exists(path, name)


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert not exists("test_flags.py", "test_nobody_wrote_this")
    assert len(NAMED) > 60


def test_every_promise_has_one_row() -> None:
    assert re.findall(r"^\| R(\d+) \|", PAGE, re.M) == [str(number) for number in range(1, 46)]


TRAPS = re.findall(r"^\| T(\d+) \| [^|]+ \| (.+) \|$", PAGE, re.M)


def is_proven(proof: str) -> bool:
    """A test that exists, or a reason why none is needed."""
    tests = re.findall(r"`([\w/]+\.py)::(test_\w+)`", proof)
    return all(exists(*test) for test in tests) and (tests != [] or proof.startswith("reason: "))


def test_every_trap_has_one_row() -> None:
    assert [number for number, _ in TRAPS] == [str(number) for number in range(1, 53)]


@pytest.mark.parametrize(("number", "proof"), TRAPS)
def test_every_trap_has_a_test_or_a_reason(number: str, proof: str) -> None:
    assert is_proven(proof), f"T{number}"


@pytest.mark.parametrize("proof", ["", "as T1", "`test_flags.py::test_nobody_wrote_this`", "reason:"])
def test_a_trap_without_either_is_noticed(proof: str) -> None:
    assert not is_proven(proof)
