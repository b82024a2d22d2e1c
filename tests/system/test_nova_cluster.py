"""The repository's own nova.toml: a whole Nova cluster under novad, and every child of it killed in turn."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.host import proc
from tests.system.client import Project, marked_processes, new_project
from tests.system.round_trip import round_trip

ROOT = Path(__file__).parents[2]
NAMES = ["broker", "network", "volume", "compute.1", "compute.2", "scheduler", "objectstore", "api"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Project]:
    shutil.copy(ROOT / "nova.toml", tmp_path)
    with new_project(tmp_path) as project:
        # Other checkouts on this machine keep their ports.
        project.write('[services.api]\nports = { ec2 = "auto" }\n[services.objectstore]\nports = { s3 = "auto" }\n',
                      "nova.local.toml")  # fmt: skip
        yield project


def rows(project: Project) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(project.novad("status", "--json").stdout)["processes"]}


def test_every_child_may_be_killed_and_the_cluster_works_after_each(cluster: Project) -> None:
    up = cluster.novad("up", "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    shown = rows(cluster)
    assert list(shown) == NAMES
    assert {row["state"] for row in shown.values()} == {"ready"}
    urls = shown["api"]["url"], shown["objectstore"]["url"]
    round_trip(*urls)
    for name in NAMES:
        pid = rows(cluster)[name]["pid"]
        os.kill(pid, signal.SIGKILL)
        cluster.until(lambda dead=pid: not proc.is_alive(dead))
        wait = cluster.novad("wait", "--timeout", "20s")
        assert wait.returncode == 0, f"after the death of {name}: {wait.stdout}{wait.stderr}"
        assert rows(cluster)[name]["restarts"] == 1
        round_trip(*urls)
    down = cluster.novad("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert [pid for pid in marked_processes(cluster.directory) if proc.is_alive(pid)] == []
    assert [*(Path(cluster.environ["XDG_RUNTIME_DIR"]) / "novad").iterdir()] == []
