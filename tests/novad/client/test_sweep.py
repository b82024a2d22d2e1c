"""The last resort kills what a record names, and nobody who was given the number since."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from novad.client import sweep

SESSION = """
import os, time
child = os.fork()
if child == 0:
    print("here", flush=True)
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def session() -> Iterator[tuple[int, int]]:
    """A session of two: its leader and a child, without any mark."""
    leader = subprocess.Popen(
        ["python3", "-c", SESSION],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.defpath},
    )
    assert leader.stdout is not None
    said = {leader.stdout.readline().strip(), leader.stdout.readline().strip()}
    child = int((said - {"here"}).pop())
    try:
        yield leader.pid, child
    finally:
        for pid in (leader.pid, child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leader.wait()
        leader.stdout.close()


def record(run_dir: Path, pid: int, started: int) -> None:
    (run_dir / "records").mkdir()
    (run_dir / "records" / "web").write_text(json.dumps({"identity": {"pid": pid, "started": started}}))


def started_of(pid: int) -> int:
    fields = sweep.fields_of(pid)
    assert fields is not None
    return fields[3]


def test_the_session_of_a_recorded_leader_is_the_clusters(tmp_path: Path, session: tuple[int, int]) -> None:
    leader, child = session
    record(tmp_path, leader, started_of(leader))
    assert set(sweep.members(["no-such-token"], str(tmp_path), sweep.leaders(str(tmp_path)))) == {leader, child}


def test_so_it_is_when_the_leader_is_dead(tmp_path: Path, session: tuple[int, int]) -> None:
    leader, child = session
    record(tmp_path, leader, started_of(leader))
    pidfd = os.pidfd_open(leader)
    os.kill(leader, signal.SIGKILL)
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    assert set(sweep.members(["no-such-token"], str(tmp_path), sweep.leaders(str(tmp_path)))) == {child}


def test_who_was_given_the_number_of_a_dead_leader_is_left_alone(
    tmp_path: Path, session: tuple[int, int]
) -> None:
    leader, _ = session
    record(tmp_path, leader, started_of(leader) - 1)
    assert sweep.members(["no-such-token"], str(tmp_path), sweep.leaders(str(tmp_path))) == {}
    assert sweep.sweep(["no-such-token"], str(tmp_path))
    assert started_of(leader)
