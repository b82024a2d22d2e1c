from __future__ import annotations

import os
from pathlib import Path

import pytest

from novad.client.project import find_place
from novad.core.errors import ConfigError, UsageError


def test_the_nearest_file_upwards_decides(project: Path) -> None:
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    assert find_place({}, str(inner), None, None, missing_ok=False).dir == str(project)
    (project / "a" / "nova.toml").write_text("")
    assert find_place({}, str(inner), None, None, missing_ok=False).dir == str(project / "a")


def test_a_file_on_the_command_line_wins_over_the_environment(project: Path) -> None:
    (project / "other.toml").write_text("")
    environ = {"NOVAD_FILE": "nova.toml"}
    assert find_place(environ, None, "other.toml", None, missing_ok=False).config.endswith("/other.toml")
    assert find_place(environ, None, None, None, missing_ok=False).config.endswith("/nova.toml")


def test_a_link_and_its_target_are_one_cluster(project: Path) -> None:
    (project / "link.toml").symlink_to(project / "nova.toml")
    by_link = find_place({}, None, "link.toml", None, missing_ok=False)
    assert by_link == find_place({}, None, None, None, missing_ok=False)


def test_namespaces_have_places_of_their_own(project: Path) -> None:
    one = find_place({"NOVAD_NAMESPACE": "ci"}, None, None, None, missing_ok=False)
    other = find_place({"NOVAD_NAMESPACE": "ci"}, None, None, "dev", missing_ok=False)
    assert (one.namespace, other.namespace) == ("ci", "dev")
    assert one.socket != other.socket
    assert one.log_dir.endswith("logs-ci")


@pytest.mark.parametrize("name", ["a/b", "../x", "", " ", "x" * 65, "a\n"])
def test_a_namespace_that_is_no_name_is_refused(project: Path, name: str) -> None:
    if name == "":
        assert find_place({}, None, None, name, missing_ok=False).namespace == "default"
        return
    with pytest.raises(UsageError):
        find_place({}, None, None, name, missing_ok=False)


def test_a_directory_as_file_means_the_file_in_it(project: Path) -> None:
    assert find_place({}, None, str(project), None, missing_ok=False).config == str(project / "nova.toml")


def test_no_file_anywhere_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_place({}, str(tmp_path), None, None, missing_ok=False)
    assert "novad init" in caught.value.hint


def test_a_cluster_whose_file_is_gone_still_has_its_place(project: Path) -> None:
    before = find_place({}, None, "nova.toml", None, missing_ok=True)
    os.unlink("nova.toml")
    assert find_place({}, None, "nova.toml", None, missing_ok=True) == before
    with pytest.raises(ConfigError, match="no such file"):
        find_place({}, None, "nova.toml", None, missing_ok=False)
