"""nova-volume: makes and deletes the volumes of its host.

The row says what is wanted (creating, deleting), the file is what is. A method finishes what the row says and
may be repeated, so `init_host` and a periodic task simply run it again for every row that is not finished.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

from nova import exception, flags, manager
from nova.db import session, volumes
from nova.db.volumes import Volume
from nova.keyed import KeyedLocks
from nova.volume.driver import FileDriver

log = logging.getLogger(__name__)

FLAGS = flags.FLAGS
flags.DEFINE_string("volumes_path", "$state_path/volumes", "directory of the volumes of all hosts")


class VolumeManager(manager.Manager):
    def __init__(self, host: str | None = None, driver: FileDriver | None = None) -> None:
        super().__init__(host)
        self.driver = driver or FileDriver(Path(FLAGS.volumes_path, self.host))
        self._busy = KeyedLocks()

    def init_host(self) -> None:
        session.sync()
        self.driver.prepare()
        self._report_lost()
        self._remove_strays()
        self.finish_volumes(None)

    @manager.idempotent
    def create_volume(self, context: Any, volume_id: int) -> None:
        """Make the file of a volume that is being created on this host."""
        with self._busy.hold(volume_id):
            volume = self._mine(volume_id, volumes.CREATING)
            if volume is None:
                return
            try:
                self.driver.create(volume_id, volume.size_gb)
            except OSError as error:
                self._fail(volume, "cannot make its file", error)
            if not self._change(volume_id, (volumes.CREATING,), volumes.AVAILABLE):
                self.driver.delete(volume_id)  # deleted meanwhile

    @manager.idempotent
    def delete_volume(self, context: Any, volume_id: int) -> None:
        """Remove the file of a volume that is being deleted."""
        with self._busy.hold(volume_id):
            volume = self._mine(volume_id, volumes.DELETING)
            if volume is None:
                return
            try:
                self.driver.delete(volume_id)
            except OSError as error:
                self._fail(volume, "cannot remove its file", error)
            self._change(volume_id, (volumes.DELETING,), volumes.DELETED)

    @manager.periodic_task(spacing=10)
    def finish_volumes(self, context: Any) -> None:
        """Go on with what was interrupted; one volume that fails does not keep the others waiting."""
        with session.read() as s:
            unfinished = volumes.in_status(s, volumes.CREATING, volumes.DELETING, host=self.host)
        for volume in unfinished:
            finish = self.create_volume if volume.status == volumes.CREATING else self.delete_volume
            try:
                finish(context, volume.id)
            except exception.Error as error:
                log.error("%s", error)

    def _mine(self, volume_id: int, status: str) -> Volume | None:
        """The volume, if it is this host's and in that status."""
        with session.read() as s:
            volume = volumes.get(s, volume_id)
        if volume.status == status and volume.host == self.host:
            return volume
        log.info("volume %d is %s on %s: nothing to do here", volume_id, volume.status, volume.host)
        return None

    def _fail(self, volume: Volume, what: str, error: OSError) -> NoReturn:
        self._change(volume.id, (volume.status,), volumes.ERROR, reason=f"{what}: {error}")
        raise exception.Error(f"volume {volume.id}: {what}: {error}") from error

    def _remove_strays(self) -> None:
        """Files of volumes that were given to another host, or deleted. What has no row may be somebody's data."""
        for volume_id in sorted(self.driver.ids()):
            with session.read() as s:
                row = s.get(Volume, volume_id)
            if row is None:
                log.warning("%s belongs to no volume; it is left alone", self.driver.path(volume_id))
            elif row.host != self.host or row.status == volumes.DELETED:
                log.info("volume %d is not here any more; removing its file", volume_id)
                self.driver.delete(volume_id)

    def _report_lost(self) -> None:
        """A volume whose file is gone is an error that a person must see."""
        with session.read() as s:
            expected = volumes.in_status(
                s, volumes.AVAILABLE, volumes.ATTACHING, volumes.IN_USE, volumes.DETACHING, host=self.host
            )
        for volume in expected:
            if not self.driver.has(volume.id):
                path = self.driver.path(volume.id)
                log.error("volume %d: its file %s is gone", volume.id, path)
                self._change(volume.id, (volume.status,), volumes.ERROR, reason=f"the file {path} is gone")

    def _change(self, volume_id: int, old: tuple[str, ...], new: str, reason: str = "") -> bool:
        with session.begin() as s:
            return volumes.move(s, volume_id, old, new, reason=reason) is not None
