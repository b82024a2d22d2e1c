"""The daemon is killed with SIGKILL: the next command, whichever it is, finds what runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from novad.host import proc
from tests.system.client import Project, marked_processes


def daemons(project: Project) -> list[int]:
    place = f"--config\0{project.directory}/nova.toml".encode()
    return [pid for pid in proc.all_pids() if place in proc.read(f"/proc/{pid}/cmdline")]


@pytest.fixture
def killed(project: Project) -> tuple[Project, list[int]]:
    project.write('[services]\na = "sleep 600"\nb = "sleep 600"\n')
    assert project.novad("up", "-d").returncode == 0
    [daemon] = daemons(project)
    before = marked_processes(project.directory)
    assert len(before) == 2
    os.kill(daemon, signal.SIGKILL)
    return project, before


def is_nothing_left(project: Project) -> bool:
    runtime = Path(project.environ["XDG_RUNTIME_DIR"]) / "novad"
    alive = [pid for pid in marked_processes(project.directory) if proc.is_alive(pid)]
    return not alive and not daemons(project) and [*runtime.iterdir()] == []


def test_status_finds_what_runs(killed: tuple[Project, list[int]]) -> None:
    project, before = killed
    shown = project.novad("status")
    assert shown.returncode == 0
    assert shown.stdout.count("● ready") == 2
    assert "adopted" in shown.stdout
    assert marked_processes(project.directory) == before
    assert project.novad("down").returncode == 0
    assert is_nothing_left(project)


def test_up_takes_over_what_runs(killed: tuple[Project, list[int]]) -> None:
    project, before = killed
    assert project.novad("up", "-d").returncode == 0
    assert marked_processes(project.directory) == before
    assert project.novad("down").returncode == 0
    assert is_nothing_left(project)


def test_down_ends_what_runs(killed: tuple[Project, list[int]]) -> None:
    project, _ = killed
    assert project.novad("down").returncode == 0
    assert is_nothing_left(project)


def test_five_ups_at_once_give_one_daemon_and_no_second_copy(killed: tuple[Project, list[int]]) -> None:
    project, before = killed
    ups = [project.start("up", "-d") for _ in range(5)]
    for up in ups:
        out, err = up.communicate(timeout=30)
        assert up.returncode == 0, out + err
    assert len(daemons(project)) == 1
    assert marked_processes(project.directory) == before
    assert project.novad("down").returncode == 0
    assert is_nothing_left(project)


def test_upgrade_keeps_the_daemon_and_its_processes(project: Project) -> None:
    project.write('[services]\na = "sleep 600"\n')
    project.novad("up", "-d")
    before = (daemons(project), marked_processes(project.directory))
    shown = project.novad("upgrade")
    assert shown.returncode == 0, shown.stderr
    assert "no service was restarted" in shown.stdout + shown.stderr
    assert (daemons(project), marked_processes(project.directory)) == before
