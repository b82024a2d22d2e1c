"""`novad wait` with a condition, against a real daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.system.client import Project

# `say` is a named pipe: what a test writes into it, the worker prints.
TALKER = """
[services.db]
command = "sleep 1000"
[services.worker]
command = ["sh", "-c", "exec 3<>say; echo up; while read line <&3; do echo $line; done"]
ready = { log = "up" }
"""


@pytest.fixture
def talker(project: Project) -> Project:
    os.mkfifo(project.directory / "say")
    project.write(TALKER)
    assert project.novad("up", "-d").returncode == 0
    return project


def say(project: Project, text: str) -> None:
    Path(project.directory, "say").write_text(f"{text}\n")


def test_a_condition_that_holds_is_answered_at_once(talker: Project) -> None:
    done = talker.novad("wait", "db.ready && worker.ready && !flapping", "--timeout", "10s")
    assert (done.returncode, done.stdout.strip()) == (0, "((db.ready && worker.ready) && !flapping) holds")


def test_a_log_line_counts_from_the_beginning_of_the_command(talker: Project) -> None:
    say(talker, "consuming old")
    talker.until(lambda: "consuming old" in talker.novad("logs", "worker").stdout)
    done = talker.novad("wait", "worker.log ~ /consuming/", "--timeout", "300ms")
    assert done.returncode == 124
    assert "worker.log ~ /consuming/  no such line yet; worker ready" in done.stderr
    waiting = talker.start("-v", "wait", "worker.log ~ /^consuming (new|now)/ && db.ready")
    assert waiting.stderr is not None
    while "subscribe" not in waiting.stderr.readline():
        pass
    say(talker, "consuming new")
    assert waiting.wait(20) == 0


def test_it_must_hold_without_a_break(talker: Project) -> None:
    began_s = time.monotonic()
    assert talker.novad("wait", "db.ready", "--hold", "500ms", "--timeout", "20s").returncode == 0
    assert time.monotonic() - began_s >= 0.5


def test_a_crash_makes_it_flap_although_it_is_started_again_at_once(talker: Project) -> None:
    waiting = talker.start("-v", "wait", "worker.flapping", "--timeout", "20s")
    assert waiting.stderr is not None
    while "subscribe" not in waiting.stderr.readline():
        pass
    os.kill(talker.processes()["worker"]["pid"], signal.SIGKILL)
    assert waiting.wait(20) == 0


def test_what_cannot_come_any_more_is_1_and_told(talker: Project) -> None:
    assert talker.novad("stop", "db").returncode == 0
    done = talker.novad("wait", "worker.ready && db.ready")
    assert done.returncode == 1
    assert "this will not happen any more" in done.stderr
    assert "db.ready  db stopped" in done.stderr
    told = json.loads(talker.novad("--json", "wait", "db.ready").stdout)
    assert told == {
        "schema": 1, "met": False, "timed_out": False, "unmet": [{"condition": "db.ready", "present": "db stopped"}],
    }  # fmt: skip


def test_an_unknown_name_is_4_and_an_unknown_state_2(talker: Project) -> None:
    assert talker.novad("wait", "dbb.ready").returncode == 4
    done = talker.novad("wait", "db.redy && worker.ready")
    assert done.returncode == 2
    assert "did you mean `ready`?" in done.stderr
    alone = talker.novad("wait", "db.redy")
    assert alone.returncode == 2
    assert "did you mean `ready`?" in alone.stderr
    assert talker.novad("wait", "db.2").returncode == 4


def test_the_plain_form_still_waits_for_names(talker: Project) -> None:
    assert talker.novad("wait", "db", "--hold", "50ms").returncode == 0
    assert talker.novad("wait", "db", "--for", "stopped", "--timeout", "100ms").returncode == 124
