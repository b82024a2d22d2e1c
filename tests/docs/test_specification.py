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
