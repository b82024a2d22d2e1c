"""The recipes of docs/ci.md are run in a scratch project, as far as a machine without network can.

What installs something or belongs to the CI system's own machinery is left out; every other step is run as it stands.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.client.carry import yaml
from tests.docs.pages import ROOT
from tests.novad.testing.conftest import site  # noqa: F401  (a fixture)
from tests.novad.testing.running import Site, finished

SET_UP = re.compile(r"pip install .*")
TESTS = """
import os, socket

def test_it(nova):
    socket.create_connection(("127.0.0.1", nova.port("store"))).close()
    assert nova.state("api") == "ready"
    assert os.environ.get("FAIL") is None
"""


def recipes() -> list[tuple[str, str]]:
    """Language and text of each block of the section."""
    section = (ROOT / "docs" / "ci.md").read_text().split("## Recipes\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.S)


def recipe(language: str, word: str) -> str:
    (found,) = [text for kind, text in recipes() if kind == language and word in text]
    return found


@pytest.fixture
def project(site: Site) -> Iterator[Site]:  # noqa: F811
    shutil.copytree(ROOT / "tests" / "system" / "sample", site.folder, dirs_exist_ok=True)
    with (site.folder / "nova.toml").open("a") as file:
        file.write('[profile.ci.env]\nIN_CI = "1"\n')
    site.write(TESTS, "test_it.py")
    site.write("check:\n\tpytest -q\n", "Makefile")
    site.environ["PATH"] = f"{Path(sys.executable).parent}:{site.environ['PATH']}"
    yield site
    assert site.left_after(2.0) == []


def follow(project: Site, steps: list[str], **environ: str) -> tuple[int, str]:
    """Run each as a CI system does, until one fails: the code and what was printed."""
    said = ""
    for step in steps:
        code, out, err = finished(project.start("bash", "-e", "-c", step, **environ))
        said += f"$ {step}\n{out}{err}"
        if code:
            return code, said
    return 0, said


def not_set_up(steps: list[str]) -> list[str]:
    """Without what needs the network; a recipe has exactly one step that does."""
    kept = [step for step in steps if not SET_UP.fullmatch(step)]
    assert len(kept) == len(steps) - 1, steps
    return kept


def github_steps(job: dict[str, Any]) -> list[str]:
    return not_set_up([step["run"] for step in job["steps"] if "run" in step])


@pytest.mark.parametrize("fails", [False, True])
def test_the_recipe_for_github(project: Site, fails: bool) -> None:
    workflow = yaml.load(recipe("yaml", "runs-on"))
    (job,) = workflow["jobs"].values()
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "summary.md", **({"FAIL": "1"} if fails else {})}
    code, said = follow(project, github_steps(job), **environ)
    assert code == int(fails), said
    (upload,) = [step for step in job["steps"] if step.get("if") == "failure()"]
    assert (project.folder / upload["with"]["path"] / "index.html").is_file()
    cases = [case.get("name") for case in ElementTree.parse(project.folder / "tests.xml").iter("testcase")]
    assert cases == ["test_it"]
    assert list(ElementTree.parse(project.folder / "novad.xml").iter("testcase"))
    assert "novad run: " in (project.folder / "summary.md").read_text()


def test_the_recipe_for_gitlab(project: Site) -> None:
    (job,) = yaml.load(recipe("yaml", "before_script")).values()
    code, said = follow(project, not_set_up([*job["before_script"], *job["script"]]), GITLAB_CI="true")
    assert code == 0, said
    assert "section_start:" in said
    for path in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert (project.folder / path).exists(), path


def test_the_recipe_for_tox(project: Site) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(recipe("ini", "testenv"))
    environment = parser["testenv"]
    assert {"novad", "pytest"} <= set(environment["deps"].split())
    commands = [line.replace("{posargs}", "-q test_it.py") for line in environment["commands"].splitlines()]
    code, said = follow(project, commands)
    assert code == 0, said
    assert "1 passed" in said


def test_the_recipe_for_a_shell(project: Site) -> None:
    code, said = follow(project, [recipe("sh", "make check")])
    assert code == 0, said
    assert "1 passed" in said
    assert (project.folder / "report" / "index.html").is_file()
    assert subprocess.run(["sh", "-n"], input=recipe("sh", "make check"), text=True).returncode == 0


def test_every_recipe_is_run_here() -> None:
    assert [kind for kind, _ in recipes()] == ["yaml", "yaml", "ini", "sh"]
