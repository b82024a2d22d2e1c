"""The daemon is killed with SIGKILL: the next command, whichever it is, finds what runs."""

from __future__ import annotations

import os
import signal
import subprocess
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


STUBBORN = "trap '' TERM; setsid sleep 600 & while :; do sleep 600; done"


def owning_up(project: Project) -> tuple[subprocess.Popen[str], int]:
    """An attached `up` with three processes, one of which ignores TERM, and its daemon."""
    project.write(f'[services.a]\ncommand = ["sh", "-c", "{STUBBORN}"]\n[services.b]\ncommand = "sleep 600"\n')
    up = project.start("up")
    project.until(lambda: len(marked_processes(project.directory)) >= 4)
    [daemon] = daemons(project)
    project.until(lambda: project.processes()["b"]["state"] == "ready")
    return up, daemon


def test_nothing_outlives_an_owner_and_its_daemon_when_both_are_killed(project: Project) -> None:
    up, daemon = owning_up(project)
    os.kill(up.pid, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    os.kill(up.pid, signal.SIGKILL)
    project.until(lambda: is_nothing_left(project))
    up.communicate(timeout=10)


def test_nothing_outlives_an_owner_whose_daemon_is_killed_while_it_stops_them(project: Project) -> None:
    up, daemon = owning_up(project)
    os.kill(up.pid, signal.SIGKILL)
    project.until(lambda: project.processes()["a"]["state"] == "stopping")
    os.kill(daemon, signal.SIGKILL)
    project.until(lambda: is_nothing_left(project))
    up.communicate(timeout=10)


def test_who_takes_over_before_the_owner_is_buried_keeps_what_runs(project: Project) -> None:
    up, daemon = owning_up(project)
    os.kill(daemon, signal.SIGKILL)
    project.until(lambda: daemons(project) not in ([], [daemon]))
    assert project.novad("status").returncode == 0
    os.kill(up.pid, signal.SIGKILL)
    up.communicate(timeout=10)
    project.until(lambda: is_nothing_left(project))


def test_a_detached_owner_leaves_nobody_behind_that_ends_the_cluster(project: Project) -> None:
    project.write("[services]\na = 'sleep 600'\n")
    up = project.terminal("up")
    up.expect("1 ready")
    before = marked_processes(project.directory)
    up.send("d")
    up.expect("detached")
    up.wait()
    [daemon] = daemons(project)
    os.kill(daemon, signal.SIGKILL)
    project.until(lambda: not proc.is_alive(daemon))
    assert project.novad("status").returncode == 0
    assert marked_processes(project.directory) == before
