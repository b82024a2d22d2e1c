"""What CI systems and people read after a run: of the sample project end to end, and the texts by themselves."""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
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
        (r"[(][+]\d+ %[)]", "(+N %)"),
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


@dataclass(frozen=True)
class Outcome:
    """A run of the sample: what it is like, and the cases that fail in its JUnit report, `CMD` for the command's."""

    id: str
    code: int
    failed: tuple[tuple[str, str], ...] = ()
    command: str = "exit 0"
    trouble: str = "none"
    flags: tuple[str, ...] = ()
    crashes: int = 0


LEAVE = "touch $TMPDIR/left; setsid sleep 1000 <&- >&- 2>&- &"
STOPPED = (("novad.stop", "everything is gone"),)
OUTCOMES = (
    Outcome("good", 0),
    Outcome("command", 7, (("novad.command", "CMD"),), "exit 7"),
    Outcome("crash", 1, (("novad.run", "flaky"),), CRASH, "crash", crashes=1),
    Outcome("forgiven", 0, (), CRASH, "crash", ("--no-fail-on-crash",), crashes=1),
    Outcome("flaky", 1, (("novad.run", "flaky"),), trouble="once", crashes=1),
    Outcome("start", 125, (("novad.start", "flaky"),), trouble="start"),
    Outcome("timeout", 124, (("novad.command", "CMD"),), "sleep 1000", flags=("--timeout", "6s")),
    Outcome("interrupted", 143, (("novad.command", "CMD"),), "kill -TERM $PPID; sleep 1000"),
    Outcome("leak", 1, STOPPED, LEAVE, flags=("--fail-on-leak",)),
    Outcome("slower", 1, (("novad.start", "flaky"),), trouble="slow", flags=("--max-ready-regression", "30%")),
)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.id)
def test_each_outcome_of_the_sample_is_told(
    sample: Site, outcome: Outcome, request: pytest.FixtureRequest
) -> None:
    if "--fail-on-leak" in outcome.flags:
        request.getfixturevalue("alone_with_shared_memory")

    past = {"commit": "an earlier one", "at": 0.0, "profile": "", "ready_s": {"flaky": 0.01, "store": 1000.0}}
    (sample.folder / ".novad").mkdir(mode=0o700)
    (sample.folder / ".novad" / "ready.jsonl").write_text(json.dumps(past) + "\n")
    command = f"{outcome.command} >/dev/null" if outcome.id != "leak" else outcome.command
    words = ["--report", "out", "--junit", "out/junit.xml", *outcome.flags, "--", "sh", "-c", command]
    found, out, err = sample.run(*words, TROUBLE=outcome.trouble, **GITHUB)
    assert found == outcome.code, err
    golden(f"{outcome.id}-err.txt", without_progress(steady(err.replace(CRASH, "CRASH"), sample)))
    told = [line for line in out.splitlines() if line.startswith("::")]
    golden(
        f"{outcome.id}-github.txt",
        "".join(f"{re.sub(r'[(][0-9]+ lines[)]', '(N lines)', line)}\n" for line in told),
    )
    page = (sample.folder / "out" / "index.html").read_text()
    assert "nobody-may-read-this" not in page
    assert "API_TOKEN" in page
    assert ("KeyError" in page) == (outcome.trouble == "crash")
    assert "<svg" in page
    document = json.loads((sample.folder / "out" / "status.json").read_text())
    assert (document["code"], len(document["crashes"])) == (outcome.code, outcome.crashes)
    assert (sample.folder / "out" / "flaky.log").exists()
    cases = ElementTree.parse(sample.folder / "out" / "junit.xml").iter("testcase")
    failed = {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None}
    assert failed == {(kind, name.replace("CMD", f"sh -c {command}")) for kind, name in outcome.failed}
    golden(f"{outcome.id}-summary.md", steady((sample.folder / "summary.md").read_text(), sample))
    assert sample.left_after(2.0) == []


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
