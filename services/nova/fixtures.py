"""Fixtures of pytest for people who test services: `pytest_plugins = ["nova.fixtures"]`.

The only module of nova that needs pytest.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

import pytest

from nova.flags import FLAGS


class SetFlags(Protocol):
    """`flags(name=value)`."""

    def __call__(self, **values: object) -> None:
        """Replace values. Raises `FlagError` for a name that nobody defined, with the nearest."""


@pytest.fixture
def flags() -> Iterator[SetFlags]:
    """Replaces flags until the test ends; what was opened by them, database and broker, is closed then."""
    with contextlib.ExitStack() as replaced:

        def replace(**values: object) -> None:
            replaced.enter_context(FLAGS.override(**values))

        yield replace
        if "nova.rpc" in sys.modules:
            sys.modules["nova.rpc"].cleanup()
        if "nova.db.session" in sys.modules:
            sys.modules["nova.db.session"].dispose()
