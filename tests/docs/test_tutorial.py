"""docs/tutorial.md is followed step by step; docs/coming-from.md names only what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from novad.client.commands import VERBS
from novad.config.manual import keys
from tests.docs.pages import ROOT
from tests.system.client import new_project

FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.M | re.S)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
# Said in the text of what a step shows.
SHOWN = {
    "novad status": "worker",
    "novad status --timeline": "ready",
    "novad logs worker": "consuming",
    "novad check --show worker": "TARGET",
    "novad why worker": "swallowed poison",
    "novad reload --dry-run": "worker.ready",
}


def test_every_step_of_the_tutorial_works_as_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs/tutorial.md").read_text()
    steps = [line.removeprefix("$ ") for block in BLOCK.findall(text) for line in block.splitlines()]
    assert set(SHOWN) <= set(steps)
    with new_project(tmp_path) as project:
        for name, content in FILE.findall(text):
            (tmp_path / name).write_text(content)
        environ = project.environ | {"PATH": f"{Path(sys.executable).parent}:{project.environ['PATH']}"}
        for step in steps:
            done = subprocess.run(
                ["sh", "-c", step], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=90,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
            assert SHOWN.get(step, "") in done.stdout, step


def test_the_page_for_newcomers_names_only_verbs_options_and_keys_that_exist() -> None:
    text = (ROOT / "docs/coming-from.md").read_text()
    verbs = {name: verb for verb in VERBS for name in (verb.name, *verb.aliases)}
    commands = re.findall(r"`novad ([a-z]+)([^`]*)`", text)
    assert len(commands) > 20
    for name, rest in commands:
        assert name in verbs, name
        options = {word for param in verbs[name].params for word in (*param.opts, *param.secondary_opts)}
        if not verbs[name].takes_letters:
            for word in re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest.partition(" -- ")[0]):
                assert word in options, f"novad {name} {word}"
    known = {part for key in keys() for part in key.split(".")}
    for key in re.findall(r"`([a-z_]+) = ", text):
        assert key in known, key
