"""A command on one line means the same words to a shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from novad.core.shell import joined


@pytest.mark.parametrize(
    "word",
    ["plain", "two words", "it's", "a\nb", "tab\t'q' \\n", "\x1b[0m", "\u200b", os.fsdecode(b"\xff\n"), ""],
)
def test_bash_reads_the_word_that_was_written(word: str) -> None:
    line = joined(["printf", "%s", word])
    assert "\n" not in line
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(
        ["bash", "-c", os.fsencode(line)], stdout=subprocess.PIPE, check=True, env=environ
    ).stdout
    assert shown == os.fsencode(word)
