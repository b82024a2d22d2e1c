"""The short form of every experiment, and its controls: `scripts/scoreboard` runs the full form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from nova.broker import engine

from tests.system import board
from tests.system.bus import ROOT

ALL = board.load()
CONTROLS = [(number, broken) for number, found in ALL.items() for broken in found.controls]


@pytest.mark.parametrize("number", ALL)
def test_the_short_form_of_the_experiment_passes(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = ALL[number]
    try:
        figures = board.perform(found.run, found.short)
    except board.Skip as why:
        pytest.skip(f"{number} {found.title}: {why}")
    with capsys.disabled():
        print(f"\n{number} pass {figures}", end=" ")


@pytest.mark.parametrize(("number", "broken"), CONTROLS)
def test_the_oracle_notices_what_is_broken_on_purpose(number: str, broken: str) -> None:
    found = ALL[number]
    try:
        with pytest.raises(board.Violation):
            board.perform(found.run, {**found.short, **found.controls[broken]})
    except board.Skip as why:
        pytest.skip(f"{number} {found.title}: {why}")


def test_every_experiment_has_a_control() -> None:
    assert [number for number, found in ALL.items() if not found.controls] == []


def test_the_experiments_on_delivery_and_poison_pass_on_rabbitmq() -> None:
    """A node of the test's own, which is killed with its broker."""
    if not any(map(shutil.which, engine.SERVERS)):
        reason = "rabbitmq-server is not installed"
        if "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.system", "--short", "--no-controls", "R35", "R38"],
        env={**os.environ, "NOVA_TEST_ENGINE": "rabbitmq", "PYTHONPATH": f"{ROOT}:{ROOT}/services"},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert re.findall(r"^(R\d+) +(\w+)", done.stdout, re.M) == [("R35", "pass"), ("R38", "pass")], done.stdout
