"""A change of a watched file restarts the processes that watch it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novad.core.spec import Python, Watch, to_json
from novad.host import proc

Eventually = Callable[[Callable[[], Any]], Any]
WATCH = Watch(("src/**/*.py",), 0.05)


@pytest.fixture
def src(daemon: Any) -> Path:
    folder = Path(daemon.place.dir) / "src" / "api"
    folder.mkdir(parents=True)
    (folder / "wsgi.py").write_text("1")
    (folder / "notes.txt").write_text("1")
    return folder


def row(client: Any, name: str = "a") -> dict[str, Any]:
    return client.ask("status", names=[name])["processes"][0]


def watcher(daemon: Any) -> list[int]:
    return [pid for pid in proc.children(daemon.process.pid) if "novad.host.watcher" in proc.command(pid)]


def restarted(client: Any, eventually: Eventually, name: str, pid: int | None) -> Any:
    return eventually(
        lambda: (found := row(client, name))["state"] == "ready" and found["pid"] not in (pid, None)
    )


def test_a_change_restarts_those_that_watch_it_and_says_which(
    daemon: Any, src: Path, eventually: Eventually
) -> None:
    client = daemon.up(
        daemon.spec("a", "sleep", "600", watch=WATCH),
        daemon.spec("b", "sleep", "600", watch=Watch(("*.toml",), 0.05)),
        daemon.spec("c", "sleep", "600"),
    )
    assert client.ask("watch", on=True) == {"on": True, "names": ["a", "b"]}
    before = {name: row(client, name)["pid"] for name in "abc"}
    (src / "notes.txt").write_text("2")
    (src / "wsgi.py").write_text("2")
    restarted(client, eventually, "a", before["a"])
    assert any("stopping: src/api/wsgi.py changed" in line for line in daemon.text("a", "n"))
    assert {name: row(client, name)["pid"] for name in "bc"} == {name: before[name] for name in "bc"}
    assert [line for line in daemon.text("a", "n") if "notes" in line] == []


def test_several_changes_at_once_are_one_restart(daemon: Any, src: Path, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", "sleep", "600", watch=Watch(("src/",), 0.3)))
    client.ask("watch", on=True)
    pid = row(client)["pid"]
    for number in range(20):
        (src / f"new{number}.py").write_text("")
    restarted(client, eventually, "a", pid)
    (src / "wsgi.py").write_text("3")
    eventually(lambda: any("wsgi.py changed" in line for line in daemon.text("a", "n")))
    assert len([line for line in daemon.text("a", "n") if line.endswith("changed")]) == 2


def test_a_change_rearms_what_has_failed_and_lets_rest_what_is_stopped(
    daemon: Any, src: Path, eventually: Eventually
) -> None:
    assert daemon.start() == "ready"
    client = daemon.client()
    gate = src / "wsgi.py"
    works = daemon.spec("a", "sh", "-c", f"grep -q works {gate} && exec sleep 600", watch=WATCH, give_up_after=1)
    cluster = daemon.cluster(works, daemon.spec("b", "sleep", "600", watch=WATCH))
    client.ask("up", cluster=to_json(cluster))
    client.ask("stop", names=["b"])
    eventually(lambda: row(client)["state"] == "failed")
    client.ask("watch", on=True)
    gate.write_text("works")
    restarted(client, eventually, "a", None)
    assert row(client, "b")["state"] == "stopped"


def test_off_means_off_and_nothing_is_left_of_the_watching_process(
    daemon: Any, src: Path, eventually: Eventually
) -> None:
    client = daemon.up(daemon.spec("a", "sleep", "600", watch=WATCH))
    assert client.ask("watch") == {"on": False, "names": ["a"]}
    client.ask("watch", on=True)
    [helper] = watcher(daemon)
    assert client.ask("watch", on=False)["on"] is False
    eventually(lambda: not os.path.exists(f"/proc/{helper}"))
    pid = row(client)["pid"]
    (src / "wsgi.py").write_text("2")
    client.ask("watch", on=True)
    assert row(client)["pid"] == pid
    [helper] = watcher(daemon)
    daemon.process.kill()
    daemon.process.wait()
    eventually(lambda: not proc.is_alive(helper))


def test_a_watching_process_that_dies_is_replaced(daemon: Any, src: Path, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", "sleep", "600", watch=WATCH))
    client.ask("watch", on=True)
    [first] = watcher(daemon)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: watcher(daemon) not in ([], [first]))
    assert client.ask("watch")["on"] is True
    pid = row(client)["pid"]
    (src / "wsgi.py").write_text("2")
    restarted(client, eventually, "a", pid)
    lines = Path(f"{daemon.place.state_dir}/journal.jsonl").read_text().splitlines()
    assert any(item["type"] == "watch" and "died" in item["text"] for item in map(json.loads, lines))


@pytest.mark.parametrize("preload", [(), ("shared",)], ids=["executed", "preloaded"])
def test_a_service_in_python_runs_the_new_code(
    daemon: Any, preload: tuple[str, ...], eventually: Eventually
) -> None:
    import sys

    folder = Path(daemon.place.dir)
    (folder / "shared.py").write_text("version = 1")
    (folder / "svc.py").write_text("import shared, time\nprint(shared.version, flush=True)\ntime.sleep(600)")
    spec = daemon.spec(
        "a", sys.executable, "-m", "svc", python=Python("svc"), watch=Watch(("*.py",), 0.05), env={
            "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert daemon.start() == "ready"
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(spec, preload=preload)))
    client.ask("wait", **{"for": "ready"})
    client.ask("watch", on=True)
    (folder / "shared.py").write_text("version = 'two'")
    eventually(lambda: daemon.text("a") == ["1", "two"])


def connected(daemon: Any) -> Any:
    try:
        return daemon.client()
    except OSError:
        return None


@pytest.mark.parametrize("way", ["upgrade", "killed"])
def test_files_are_watched_on_by_the_novad_that_follows(
    daemon: Any, src: Path, eventually: Eventually, way: str
) -> None:
    client = daemon.up(daemon.spec("a", "sleep", "600", watch=WATCH))
    client.ask("watch", on=True)
    pid, [before] = row(client)["pid"], watcher(daemon)
    if way == "upgrade":
        client.ask("upgrade")
        assert client.is_cut_off()
    else:
        daemon.process.kill()
        daemon.process.wait()
        daemon.start()
    client = eventually(lambda: connected(daemon))
    assert client.ask("watch") == {"on": True, "names": ["a"]}
    assert before not in watcher(daemon)
    assert row(client)["pid"] == pid
    (src / "wsgi.py").write_text("2")
    restarted(client, eventually, "a", pid)


def test_who_ended_the_watch_before_novad_died_is_not_watched(daemon: Any, src: Path) -> None:
    client = daemon.up(daemon.spec("a", "sleep", "600", watch=WATCH))
    client.ask("watch", on=True)
    client.ask("watch", on=False)
    daemon.process.kill()
    daemon.process.wait()
    daemon.start()
    assert daemon.client().ask("watch") == {"on": False, "names": ["a"]}
    assert watcher(daemon) == []
