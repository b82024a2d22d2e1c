"""docs/writing-a-service.md: the files that it shows are extracted, counted, and run under novad."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-service.md"
NAMED = re.compile(r"^`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in NAMED.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text)
    return tmp_path


def novad(project: Path, *words: str) -> str:
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    environ["XDG_RUNTIME_DIR"] = str(project)
    result = subprocess.run(
        [Path(sys.executable).parent / "novad", *words],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_whole_service_has_less_than_thirty_lines() -> None:
    files = dict(NAMED.findall(PAGE.read_text()))
    assert set(files) == {"greeter.py", "nova.toml", "ask.py", "test_greeter.py"}
    assert len(files["greeter.py"].splitlines()) < 30


def test_the_service_of_the_page_runs_under_novad_and_answers(project: Path) -> None:
    try:
        novad(project, "up", "-d")
        novad(project, "start", "ask")
        assert re.search(r"hello Ann, from greeter\.[12]", novad(project, "logs", "ask"))
    finally:
        novad(project, "down")


@pytest.mark.parametrize(("greeting", "verdict"), [("hello", "2 passed"), ("good day", "1 failed, 1 passed")])
def test_the_tests_of_the_page_pass_while_the_service_does_what_they_say(
    project: Path, greeting: str, verdict: str
) -> None:
    service = project / "greeter.py"
    service.write_text(service.read_text().replace('"hello"', f'"{greeting}"'))
    environ = {**os.environ, "PYTHONPATH": f"{PAGE.parents[1] / 'services'}:{project}"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"],
        cwd=project, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert verdict in result.stdout, result.stdout + result.stderr
