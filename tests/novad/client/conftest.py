"""A project in a temporary directory, and a daemon for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from novad.client.project import find_place
from novad.core.place import Place
from tests.novad.client.fakes import FakeDaemon


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory for sockets: pytest's own are too long for an address."""
    path = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def project(tmp_path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a nova.toml, which is also the current one."""
    for name in [name for name in os.environ if name.startswith("NOVAD_") or name in ("NO_COLOR", "FORCE_COLOR")]:
        monkeypatch.delenv(name)
    (tmp_path / "nova.toml").write_text('[services]\nweb = "sleep 100"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def place(project: Path) -> Place:
    return find_place(os.environ, None, None, None, missing_ok=False)


@pytest.fixture
def daemon(place: Place) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(place)
    yield fake
    fake.close()
