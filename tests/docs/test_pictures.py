"""The pictures of the README show what the commands print now, in the colours that they send."""

from __future__ import annotations

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.pages import ROOT
from tests.docs.pictures import FOLDER, SHOTS, css, palette, styles, svg, take, words
from tests.docs.sessions import directory, is_shown


def test_every_picture_is_of_what_is_printed_now() -> None:
    with tempfile.TemporaryDirectory(prefix="novad-", dir="/tmp") as top, directory(Path(top)) as project:
        for name, printed in take(project):
            fresh = svg(SHOTS[name].command, printed.replace(str(project.directory), "/home/ann/shop"))
            kept = (FOLDER / f"{name}.svg").read_text()
            shown, now = words(kept), words(fresh)
            assert shown[0] == now[0] == f"$ {SHOTS[name].command}"
            assert is_shown(shown[1:], "\n".join(now[1:])), "\n".join(
                ["run scripts/pictures; now it prints", *now]
            )
            assert styles(kept) == styles(fresh), name


def test_every_picture_is_in_the_readme_and_can_be_read() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {path.stem for path in FOLDER.iterdir()} == set(SHOTS)
    for name in SHOTS:
        assert f"](docs/pictures/{name}.svg)" in readme
        ElementTree.parse(FOLDER / f"{name}.svg")
        assert len(styles((FOLDER / f"{name}.svg").read_text())) > 2


def test_a_picture_of_something_else_is_noticed() -> None:
    picture = svg("novad x", "\x1b[32mready\x1b[0m <a> & b\n")
    assert words(picture) == ["$ novad x", "ready <a> & b"]
    assert "fill:#7bd88f;" in styles(picture)
    assert not is_shown(words(picture)[1:], "failed <a> & b")


@pytest.mark.parametrize(
    ("codes", "style"),
    [
        ("0", ""),
        ("", ""),
        ("1", "font-weight:bold;"),
        ("38;5;196", "fill:#ff0000;"),
        ("1;31", "font-weight:bold;fill:#ff6b6b;"),
    ],
)
def test_a_colour_becomes_a_style(codes: str, style: str) -> None:
    assert css(codes, "") == style
    assert palette(255) == "#eeeeee"
