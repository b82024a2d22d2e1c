"""Texts that are kept beside the tests, at both widths, with and without colour.

After a wanted change NOVAD_WRITE_GOLDEN=1 writes them anew: read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "client" / "golden"


def golden(name: str, lines: list[str]) -> None:
    path = GOLDEN / f"{name}.txt"
    text = "".join(f"{line}\n" for line in lines)
    if os.environ.get("NOVAD_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing"
    assert text == path.read_text()


SHAPE = pytest.mark.parametrize(("width", "colour"), [(80, False), (80, True), (120, False), (120, True)])


def shape(width: int, colour: bool) -> str:
    return f"{width}{'-colour' if colour else ''}"
