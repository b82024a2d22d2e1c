"""Starting the daemon: the directories it needs, and what a user reads when it cannot be started."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from novad.client.app import write_names
from novad.client.deadline import Deadline
from novad.client.launch import connect_or_launch, launch, prepare
from novad.client.link import Link
from novad.client.shell.repl import History
from novad.core.errors import NovadError
from novad.core.place import Place
from novad.core.place import place as place_of


@pytest.fixture
def running(place: Place) -> Iterator[Link]:
    link, started = connect_or_launch(place)
    assert started
    yield link
    pidfd = os.pidfd_open(link.daemon_pid())
    link.request("down", None)
    link.close()
    # The daemon has ended when its descriptor is readable.
    import select

    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)


def test_the_run_directory_is_private_and_the_state_is_not_committed(place: Place) -> None:
    prepare(place)
    prepare(place)
    for path in map(Path, (place.run_dir, Path(place.run_dir).parent, place.state_dir, place.log_dir)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (Path(place.state_dir) / ".gitignore").read_text() == "*\n"


def test_a_directory_in_which_everybody_may_rename_is_no_place_for_a_socket(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    where = place_of(str(tmp_path / "nova.toml"), "default", str(tmp_path), "/tmp", os.getuid())
    with pytest.raises(NovadError, match="everybody may exchange") as caught:
        prepare(where)
    assert "XDG_RUNTIME_DIR" in caught.value.hint
    tmp_path.chmod(0o1777)
    prepare(where)


@pytest.mark.parametrize("name", [".gitignore", "novad.log", "names", "history"])
def test_a_link_that_came_with_the_project_leads_no_write_to_another_file(place: Place, name: str) -> None:
    victim = Path(place.dir) / "victim"
    victim.write_text("mine\n")
    prepare(place)
    path = Path(place.state_dir, name)
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    prepare(place)
    write_names(place, [{"name": "a", "service": "a"}])
    if name == "novad.log":
        with pytest.raises(NovadError, match="a symbolic link"):
            launch(place, Deadline(10.0))
    if name == "history":
        with pytest.raises(NovadError, match="a symbolic link"):
            History(path)
    assert victim.read_text() == "mine\n"


def test_a_state_directory_that_is_a_link_is_refused(place: Place) -> None:
    elsewhere = Path(place.dir) / "elsewhere"
    elsewhere.mkdir()
    Path(place.state_dir).symlink_to(elsewhere)
    with pytest.raises(NovadError, match="not a directory"):
        prepare(place)
    assert list(elsewhere.iterdir()) == []


def test_a_socket_path_that_no_address_holds_is_told_before_anything_is_made(tmp_path: Path) -> None:
    deep = place_of(str(tmp_path / "nova.toml"), "default", str(tmp_path / ("x" * 90)), "/tmp", os.getuid())
    with pytest.raises(NovadError, match="longer than the 103 bytes") as caught:
        prepare(deep)
    assert "XDG_RUNTIME_DIR" in caught.value.hint
    assert not (tmp_path / ".novad").exists()


def test_a_second_launch_connects_to_the_daemon_that_is_there(place: Place, running: Link) -> None:
    link, started = connect_or_launch(place)
    with link:
        assert not started
        assert link.request("ping")["pid"] == running.request("ping")["pid"]


def test_the_loser_of_a_race_is_told_busy(place: Place, running: Link) -> None:
    assert launch(place, Deadline(20)) == "busy"


def test_a_daemon_that_dies_at_once_shows_the_end_of_its_log(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken" / "eventlet"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('this eventlet is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(NovadError, match="ended with status 1 before it was ready") as caught:
        connect_or_launch(place)
    assert "| RuntimeError: this eventlet is broken" in caught.value.message
    assert caught.value.hint.endswith("novad.log")


def test_a_module_of_the_project_does_not_shadow_one_of_the_daemon(place: Place, project: Path) -> None:
    (project / "socket.py").write_text("raise RuntimeError('shadowed')\n")
    link, started = connect_or_launch(place)
    with link:
        assert started
        pidfd = os.pidfd_open(link.daemon_pid())
        link.request("down", None)
    import select

    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
