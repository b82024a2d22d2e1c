from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.novad.testing.running import Site


@pytest.fixture
def alone_with_shared_memory() -> Iterator[None]:
    """One after another: nothing tells whose a piece of shared memory is that nobody uses any more."""
    with open(f"/tmp/novad-tests-shared-memory-{os.getuid()}", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    runtime = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    made = Site(tmp_path, runtime)
    yield made
    made.end()
    shutil.rmtree(runtime)
