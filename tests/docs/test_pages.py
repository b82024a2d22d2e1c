"""The pages that are made from code say what the code says."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from novad.client.commands import VERBS
from novad.client.reference import man_page, options
from novad.config.manual import keys
from tests.docs.pages import PAGES, ROOT


@pytest.mark.parametrize("path", PAGES)
def test_a_generated_page_is_current(path: str) -> None:
    assert (ROOT / path).read_text() == PAGES[path](), "run scripts/docs"


def test_every_verb_every_option_and_every_key_is_in_the_reference() -> None:
    commands, toml = (ROOT / "docs/commands.md").read_text(), (ROOT / "docs/nova-toml.md").read_text()
    for verb in VERBS:
        if not verb.hidden:
            assert f"### {verb.name}\n" in commands
            assert all(f"`{name}`".replace("|", "\\|") in commands for name, _ in options(verb))
    assert all(f"## `{key}`\n" in toml for key in keys())


def test_the_manual_page_is_read_without_a_warning() -> None:
    groff = shutil.which("groff") or shutil.which("mandoc")
    page = man_page(VERBS, "1.0")
    assert "\n'" not in page
    assert all(line.split()[0] in (".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".br")
               for line in page.splitlines() if line.startswith("."))  # fmt: skip
    if groff is None:
        pytest.skip("neither groff nor mandoc is installed")
    words = [groff, "-man", "-Tutf8", "-ww"] if groff.endswith("groff") else [groff, "-T", "lint"]
    done = subprocess.run(words, input=page, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert "novad logs" in re.sub(".\x08", "", done.stdout), "bold is struck over"
