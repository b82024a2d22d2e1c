"""Volumes as sparse files in a folder.

A volume is `volume-0000002a`; it is made under another name and renamed, so it has its full size or is not there.
Every method may be repeated. File operations block and run in a native thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from nova import green

GIB = 1024**3
_PREFIX = "volume-"
_HALF = ".making"


class FileDriver:
    """The volumes of one host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder and remove what an interrupted creation left."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.glob(f"{_PREFIX}*{_HALF}"):
            path.unlink()

    def create(self, volume_id: int, size_gb: int) -> None:
        green.tpool.execute(self._create, self.path(volume_id), size_gb * GIB)

    def delete(self, volume_id: int) -> None:
        green.tpool.execute(self.path(volume_id).unlink, missing_ok=True)

    def has(self, volume_id: int) -> bool:
        return self.path(volume_id).exists()

    def ids(self) -> set[int]:
        """The volumes that exist on this host."""
        names = (path.name.removeprefix(_PREFIX) for path in self.root.glob(f"{_PREFIX}????????"))
        return {int(name, 16) for name in names}

    def path(self, volume_id: int) -> Path:
        return self.root / f"{_PREFIX}{volume_id:08x}"

    def _create(self, path: Path, size: int) -> None:
        if path.exists():
            return
        half = path.with_name(path.name + _HALF)
        with open(half, "wb") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        os.rename(half, path)
