from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.client import Project, new_project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project; whatever runs in it is ended afterwards."""
    with new_project(tmp_path) as made:
        yield made
