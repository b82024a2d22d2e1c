"""Directories and files of the user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from novad.client.private import private_directory
from novad.core.errors import NovadError


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
