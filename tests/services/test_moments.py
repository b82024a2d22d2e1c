"""A TERM at each named moment of a service's life, once and thrice: it ends in time and clean, nothing is half done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import moments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    moments.prepare(tmp_path)
    return tmp_path


@pytest.fixture
def broker(folder: Path) -> Iterator[str]:
    """Its URL."""
    with moments.broker(folder) as url:
        yield url


def test_term_at_any_moment_of_a_service_on_the_queue(folder: Path, broker: str) -> None:
    moments.pass_queue(folder, broker, terms=1)


def test_term_at_any_moment_of_a_service_on_the_web(folder: Path) -> None:
    moments.pass_web(folder, terms=1)


def test_a_third_term_changes_nothing_at_any_moment(folder: Path, broker: str) -> None:
    began_s = time.monotonic()
    moments.pass_queue(folder, broker, 3)
    moments.pass_web(folder, 3)
    assert time.monotonic() - began_s < 60
