"""nova-volume: the file follows the row, whatever was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from nova import exception, green
from nova.context import get_admin_context
from nova.db import session, volumes
from nova.volume.driver import GIB, FileDriver
from nova.volume.manager import VolumeManager

CONTEXT = get_admin_context()


@pytest.fixture
def manager(state_path: Path) -> VolumeManager:
    return started()


def started(driver: FileDriver | None = None) -> VolumeManager:
    manager = VolumeManager("v1", driver)
    manager.init_host()
    return manager


def make(**values: object) -> int:
    columns = {"project_id": "p", "user_id": "u", "size_gb": 1, "availability_zone": "nova", "host": "v1"}
    with session.begin() as s:
        return volumes.create(s, **{**columns, **values}).id


def status(volume_id: int) -> str:
    with session.read() as s:
        found = s.get(volumes.Volume, volume_id)
        assert found
        return found.status


def move(volume_id: int, new: str) -> None:
    with session.begin() as s:
        volumes.move(s, volume_id, (status(volume_id),), new)


def test_a_volume_is_a_sparse_file_of_its_size_and_then_none(manager: VolumeManager) -> None:
    volume = make()
    for _ in range(2):
        manager.create_volume(CONTEXT, volume_id=volume)
    path = manager.driver.path(volume)
    assert (status(volume), path.stat().st_size) == ("available", GIB)
    assert path.stat().st_blocks * 512 < 1024 * 1024
    manager.delete_volume(CONTEXT, volume)
    assert path.exists()  # nobody asked for it
    move(volume, "deleting")
    manager.delete_volume(CONTEXT, volume)
    assert (status(volume), path.exists()) == ("deleted", False)
    with pytest.raises(exception.NotFound):
        manager.delete_volume(CONTEXT, volume)


def test_what_was_interrupted_is_finished_at_the_next_start(manager: VolumeManager) -> None:
    creating, made, deleting, foreign = make(), make(), make(), make(host="v2")
    manager.driver.create(made, 1)
    manager.driver.create(deleting, 1)
    move(deleting, "deleting")
    (manager.driver.root / "volume-00000001.making").write_bytes(b"half")
    again = started()
    assert [status(volume) for volume in (creating, made, deleting, foreign)] == [
        "available",
        "available",
        "deleted",
        "creating",
    ]
    assert again.driver.ids() == {creating, made}
    assert not list(again.driver.root.glob("*.making"))


def test_a_volume_whose_file_is_gone_is_an_error(manager: VolumeManager) -> None:
    volume = make()
    manager.create_volume(CONTEXT, volume)
    manager.driver.path(volume).unlink()
    started()
    with session.read() as s:
        assert (status(volume), "is gone" in volumes.get(s, volume).reason) == ("error", True)


def test_a_volume_that_two_make_at_once_is_made_once(manager: VolumeManager) -> None:
    """The message and the check for what was interrupted may meet."""
    ids = [make() for _ in range(5)]
    pool = green.GreenPool()
    made = [pool.spawn(manager.create_volume, CONTEXT, volume) for volume in ids for _ in range(4)]
    for thread in made:
        thread.wait()
    assert {status(volume) for volume in ids} == {"available"}
    assert manager.driver.ids() == set(ids)


def test_a_file_whose_volume_went_elsewhere_is_removed_and_one_of_nobody_is_kept(manager: VolumeManager) -> None:
    moved, deleted, nobody = make(host="v2"), make(status="deleted"), 77
    for volume in (moved, deleted, nobody):
        manager.driver.create(volume, 1)
    assert started().driver.ids() == {nobody}


class FullDisk(FileDriver):
    def _create(self, path: Path, size: int) -> None:
        raise OSError(28, "No space left on device")


def test_a_volume_that_cannot_be_made_says_why_and_the_others_are_made(manager: VolumeManager) -> None:
    volume = make()
    with pytest.raises(exception.Error, match="No space left"):
        VolumeManager("v1", FullDisk(manager.driver.root)).create_volume(CONTEXT, volume)
    with session.read() as s:
        assert "No space left" in volumes.get(s, volume).reason
    assert status(volume) == "error"


def test_a_volume_that_is_deleted_while_it_is_made_leaves_no_file(manager: VolumeManager) -> None:
    volume = make()

    class Slow(FileDriver):
        def create(self, volume_id: int, size_gb: int) -> None:
            super().create(volume_id, size_gb)
            move(volume_id, "deleting")

    VolumeManager("v1", Slow(manager.driver.root)).create_volume(CONTEXT, volume)
    assert manager.driver.ids() == set()
