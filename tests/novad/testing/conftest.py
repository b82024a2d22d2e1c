from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.novad.testing.running import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    runtime = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    made = Site(tmp_path, runtime)
    yield made
    made.end()
    shutil.rmtree(runtime)
