"""Starting the daemon: the directories it needs, and what a user reads when it cannot be started."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from novad.client.deadline import Deadline
from novad.client.launch import connect_or_launch, launch, prepare, private_directory
from novad.client.link import Link
from novad.core.errors import NovadError
from novad.core.place import Place, place


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
    for path in (Path(place.run_dir), Path(place.run_dir).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (Path(place.state_dir) / ".gitignore").read_text() == "*\n"
    assert Path(place.log_dir).is_dir()


def test_a_run_directory_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    open_one = tmp_path / "open"
    open_one.mkdir()
    open_one.chmod(0o777)
    private_directory(open_one)
    assert stat.S_IMODE(open_one.stat().st_mode) == 0o700


def test_a_run_directory_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(NovadError, match="not a directory") as caught:
            private_directory(tmp_path / name)
        assert caught.value.hint.startswith("remove it")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a directory of another user")
def test_a_run_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(NovadError, match="belongs to uid 12345"):
        private_directory(tmp_path / "theirs")


def test_a_socket_path_that_no_address_holds_is_told_before_anything_is_made(tmp_path: Path) -> None:
    deep = place(str(tmp_path / "nova.toml"), "default", str(tmp_path / ("x" * 90)), "/tmp", os.getuid())
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
