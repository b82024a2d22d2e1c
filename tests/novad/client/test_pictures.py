from __future__ import annotations

import json
from pathlib import Path

import pytest

from novad.client.journal import Change, last_run
from novad.client.render.graph import dot, mermaid, tree
from novad.client.render.paint import Paint, visible_length
from novad.client.render.timeline import axis, timeline
from novad.core.spec import Cluster, Dependency, Log, ProcessSpec
from tests.novad.goldens import SHAPE, golden, shape

OFF = Paint(False)


def spec(name: str, *after: tuple[str, str]) -> ProcessSpec:
    dependencies = tuple(Dependency(target, condition) for target, condition in after)  # type: ignore[arg-type]
    return ProcessSpec(name, name.partition(".")[0], 1, ("sleep",), "/", Log("/l"), after=dependencies)


CLUSTER = Cluster(
    "p", "default", "/n.toml", "/", "/r", "/s", {},
    (spec("broker"), spec("sync", ("broker", "ready")), spec("compute.1", ("sync", "done")),
     spec("compute.2", ("sync", "done")), spec("api", ("broker", "ready"), ("compute", "ready"))),
)  # fmt: skip


@SHAPE
def test_the_timeline_of_a_start(width: int, colour: bool) -> None:
    changes = [
        Change(0.0, "broker", "starting"), Change(0.0, "db-sync", "waiting"), Change(0.0, "api", "waiting"),
        Change(0.0, "compute.2", "waiting"), Change(1.8, "broker", "ready"), Change(1.8, "db-sync", "starting"),
        Change(2.7, "db-sync", "done"), Change(2.7, "api", "starting"), Change(2.7, "compute.2", "starting"),
        Change(3.0, "compute.2", "backoff"), Change(3.3, "compute.2", "starting"), Change(3.6, "compute.2", "failed"),
        Change(5.8, "api", "ready"), Change(9.0, "api", "stopping"), Change(9.5, "api", "stopped"),
    ]  # fmt: skip
    lines = timeline(changes, ["broker", "db-sync", "api", "compute.2"], 12.0, width, Paint(colour))
    assert max(visible_length(line) for line in lines) <= width
    golden(f"timeline-{shape(width, colour)}", lines)


def test_a_start_as_bars() -> None:
    changes = [
        Change(0.0, "broker", "starting"), Change(0.0, "sync", "waiting"), Change(1.0, "broker", "ready"),
        Change(1.0, "sync", "starting"), Change(2.0, "sync", "done"), Change(0.0, "bad", "starting"),
        Change(0.5, "bad", "backoff"), Change(1.0, "bad", "starting"), Change(1.01, "bad", "failed"),
    ]  # fmt: skip
    lines = timeline(changes, ["broker", "sync", "bad"], 1000.0, 38, OFF)
    assert lines[:-1] == [
        "        0s           1s          2s",
        "broker  ▒▒▒▒▒▒▒▒▒▒▒▒█████████████████",
        "sync    ············▒▒▒▒▒▒▒▒▒▒▒▒▒✔",
        "bad     ▒▒▒▒▒▒✖·····✖",
    ]
    assert "crash" in lines[-1]


def test_nothing_started_is_said() -> None:
    assert timeline([], ["api"], 0.0, 80, OFF) == ["nothing has been started yet"]


@pytest.mark.parametrize("seconds", [0.004, 0.05, 1.0, 6.5, 90.0, 4000.0, 200_000.0])
def test_ticks_never_run_into_each_other(seconds: float) -> None:
    labels = axis(seconds, 70).split()
    assert labels[0] == "0s"
    assert len(set(labels)) == len(labels) <= 10


def test_the_journal_is_read_from_the_last_end_on_and_bad_lines_are_passed_over(tmp_path: Path) -> None:
    def line(**fields: object) -> str:
        return json.dumps(fields) + "\n"

    old = line(at=1, type="state", name="api", state="ready") + line(at=2, type="down", pid=1)
    new = (
        line(at=3, type="state", name="api", state="starting")
        + '{"at": 4, "type"\n[]\n'
        + line(at=5, type="exit")
    )
    (tmp_path / "journal.jsonl.1").write_text(old)
    (tmp_path / "journal.jsonl").write_text(new)
    assert last_run(str(tmp_path / "journal.jsonl")) == [Change(3.0, "api", "starting")]
    assert last_run(str(tmp_path / "none")) == []


def test_the_tree_shows_each_service_once_and_names_what_else_it_waits_for() -> None:
    assert tree(CLUSTER, {"api": "ready"}, OFF) == [
        "broker",
        "└─ sync",
        "   └─ compute",
        "      └─ api ● ready  also after broker",
    ]


def test_graphs_for_documents_name_the_condition_where_it_is_not_ready() -> None:
    assert "  s_sync -->|done| s_compute" in mermaid(CLUSTER)
    assert "  s_broker --> s_api" in mermaid(CLUSTER)
    assert '  "sync" -> "compute" [label=done];' in dot(CLUSTER)
