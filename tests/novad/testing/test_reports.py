"""What CI systems and people read after a run: of the sample project end to end, and the texts by themselves."""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from novad.testing import hosted
from novad.testing.junit import junit
from novad.testing.story import Crash, Place, Story, place_of
from tests.novad.testing.running import Site

SAMPLE = Path(__file__).parents[2] / "system" / "sample"
GOLDEN = Path(__file__).parent / "golden"
NOVAD = f"{sys.executable} -m novad"
CRASH = (
    f"{NOVAD} signal USR1 flaky && while ! {NOVAD} why flaky | grep -q vcpus; do :; done && {NOVAD} wait flaky"
)
GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "summary.md"}


@pytest.fixture
def sample(site: Site) -> Site:
    shutil.copytree(SAMPLE, site.folder, dirs_exist_ok=True)
    return site


def steady(text: str, site: Site) -> str:
    """The text without what differs between two runs."""
    for pattern, word in (
        (re.escape(str(site.folder)), "DIR"),
        (re.escape(sys.executable), "PYTHON"),
        (r"run-[0-9a-f]{8}", "run-ID"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "STAMP"),
        (r"\d\d:\d\d:\d\d", "CLOCK"),
        (r"\b\d+(\.\d+)? ?s\b", "TIME"),
        (r"^\d\d\.\d", "TT.T"),
        (r"pid \d+", "pid N"),
        (r"process \d+", "process N"),
        (r" \(critical: .*?\)", ""),
        (r" {2,}", "  "),
    ):
        text = re.sub(pattern, word, text, flags=re.M)
    return text


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"wrote {path}: look at it and run again")
    assert text == path.read_text()


def without_progress(text: str) -> str:
    """How often it is told that something still waits depends on the machine."""
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("TT.T"))


@pytest.mark.parametrize(
    ("trouble", "command", "code"),
    [("none", "exit 0", 0), ("none", "exit 7", 7), ("crash", CRASH, 1), ("start", "exit 0", 125)],
    ids=["good", "command", "crash", "start"],
)
def test_each_outcome_of_the_sample_is_told(
    sample: Site, request: pytest.FixtureRequest, trouble: str, command: str, code: int
) -> None:
    name = request.node.callspec.id
    words = ["--report", "out", "--junit", "out/junit.xml", "--", "sh", "-c", f"{command} >/dev/null"]
    found, out, err = sample.run(*words, TROUBLE=trouble, **GITHUB)
    assert found == code, err
    golden(f"{name}-err.txt", without_progress(steady(err.replace(CRASH, "CRASH"), sample)))
    told = [line for line in out.splitlines() if line.startswith("::")]
    golden(
        f"{name}-github.txt", "".join(f"{re.sub(r'[(][0-9]+ lines[)]', '(N lines)', line)}\n" for line in told)
    )
    page = (sample.folder / "out" / "index.html").read_text()
    assert "nobody-may-read-this" not in page
    assert "API_TOKEN" in page
    assert ("KeyError" in page) == (name == "crash")
    assert "<svg" in page
    document = json.loads((sample.folder / "out" / "status.json").read_text())
    assert (document["code"], len(document["crashes"])) == (code, int(name == "crash"))
    assert (sample.folder / "out" / "flaky.log").exists()
    cases = ElementTree.parse(sample.folder / "out" / "junit.xml").iter("testcase")
    failed = {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None}
    expected = {
        "good": set(),
        "command": {("novad.command", f"sh -c {command} >/dev/null")},
        "crash": {("novad.run", "flaky")},
        "start": {("novad.start", "flaky")},
    }
    assert failed == expected[name]
    assert "### " in (sample.folder / "summary.md").read_text()


def test_a_report_is_written_when_the_time_runs_out_and_when_it_is_terminated(sample: Site) -> None:
    code, _, err = sample.run("--timeout", "2s", "--report", "late", "--", "sleep", "1000")
    assert code == 124, err
    page = (sample.folder / "late" / "index.html").read_text()
    assert "time was up" in page or "did not come up in time" in page
    runner = sample.novad("run", "--report", "ended", "--", "sh", "-c", "echo running; sleep 1000")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "running\n"
    runner.terminate()
    runner.communicate(timeout=30)
    assert runner.returncode == 143
    assert "interrupted" in (sample.folder / "ended" / "index.html").read_text()


LEAKING = """
import os, socket, subprocess, sys, tempfile
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=10)
resource_tracker.unregister(memory._name, "shared_memory")
open(os.path.join(tempfile.gettempdir(), "left.txt"), "w").close()
socket.socket(socket.AF_UNIX).bind(os.path.join(tempfile.gettempdir(), "left.sock"))
code = "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); print(1, flush=True); time.sleep(1000)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(memory._name)
"""


def test_what_is_left_behind_is_named_and_fails_the_run(sample: Site) -> None:
    sample.write(LEAKING, "leaking.py")
    code, out, err = sample.run("--fail-on-leak", "--", sys.executable, "leaking.py")
    (Path("/dev/shm") / out.strip().lstrip("/")).unlink()
    assert code == 1, err
    for said in (
        "listens on port",
        "file left.txt in $TMPDIR",
        "unix socket left.sock in $TMPDIR",
        "shared memory",
    ):
        assert said in err
    assert sample.left_after(2) == []
    code, out, err = sample.run("--fail-on-leak", "--", "true")
    assert code == 0, err


def crash(**more: object) -> Crash:
    given = {
        "name": "api", "how": "exit 1", "at": 10.0, "lived_s": 1.0, "was_ready": True, "why": "because",
        "lines": ("KeyError: '50%, a:b'",), "place": Place("shop/api.py", 3),
    }  # fmt: skip
    return Crash(**{**given, **more})  # type: ignore[arg-type]


def test_an_annotation_is_escaped_as_github_wants_it() -> None:
    assert hosted.annotation(crash(), "sub") == (
        "::error file=sub/shop/api.py,line=3,title=api%3A exit 1::KeyError: '50%25, a:b'"
    )
    assert hosted.annotation(crash(place=None), "") == "::error title=api%3A exit 1::KeyError: '50%25, a:b'"


def test_a_line_of_a_service_is_never_a_command_of_the_ci_system() -> None:
    assert hosted.group("github", "log", ["::error::x"], 0)[1] == ": :error::x"


def test_a_place_is_the_last_frame_inside_the_project(tmp_path: Path) -> None:
    lines = [
        'File "/usr/lib/python3/runpy.py", line 1',
        f'File "{tmp_path}/shop/api.py", line 7, in get',
        f'File "{tmp_path}/.venv/lib/site-packages/x.py", line 9',
    ]
    assert place_of(lines, str(tmp_path)) == Place("shop/api.py", 7)
    assert place_of(lines[:1], str(tmp_path)) is None


def test_junit_can_be_read_whatever_a_service_has_printed() -> None:
    from novad.core.spec import Cluster, Log, ProcessSpec

    spec = ProcessSpec("api", "api", 1, ("true",), "/", Log("/x"))
    cluster = Cluster("p", "n", "/nova.toml", "/", "/run", "/state", {}, (spec,))
    story = Story(cluster, ("make", "\x1b[1m"), 0.0, rows=[{"name": "api"}], crashes=[crash(why="\x00<&>")])
    cases = ElementTree.fromstring(junit(story, {"api": "\x1b[31mred\ud800"})).iter("testcase")
    assert [case.get("classname") for case in cases] == [
        "novad.start",
        "novad.run",
        "novad.command",
        "novad.stop",
    ]
