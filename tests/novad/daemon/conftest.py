"""A real daemon for each test."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.core.place import place
from tests.novad.daemon.running import DEADLINE_S, Running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="novad-test-") as runtime:
        where = place(str(tmp_path / "nova.toml"), "default", runtime, "/tmp", os.getuid())
        running = Running(where)
        yield running
        running.end()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Waits for something that no event announces: what /proc or a file shows."""

    def wait(condition: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.005)
        return value

    return wait
