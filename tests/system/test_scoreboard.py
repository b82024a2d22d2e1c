"""The short form of every experiment, and its controls: `scripts/scoreboard` runs the full form."""

from __future__ import annotations

import pytest

from tests.system import board

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
