"""Tests of services: the hub runs in the main thread, and what blocks, as boto3 does, in a native one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nova import flags, green, rpc
from nova.db import instances, session
from nova.rpc import fake

T = TypeVar("T")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "native: the test runs in a native thread and may block")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("native") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    green.tpool.execute(pyfuncitem.obj, **arguments)
    return True


@pytest.fixture
def state_path(tmp_path: Path) -> Iterator[Path]:
    """A directory and a database of the test's own."""
    with flags.FLAGS.override(state_path=str(tmp_path), sql_connection="sqlite:///$state_path/nova.sqlite"):
        session.sync()
        yield tmp_path
        session.dispose()


@pytest.fixture
def bus() -> Iterator[None]:
    """Calls between services of this process, over a broker that is made for the test."""
    with flags.FLAGS.override(fake_rabbit=True):
        fake.broker.__init__()  # type: ignore[misc]
        yield
        rpc.cleanup()


@pytest.fixture
def until():
    """`until(what)`: wait until `what()` is true, and return it. Fails after `deadline_s`."""

    def wait(what: Callable[[], T], deadline_s: float = 10.0) -> T:
        end_s = time.monotonic() + deadline_s
        while not (found := what()):
            assert time.monotonic() < end_s, f"not within {deadline_s:g} s"
            green.sleep(0.01)
        return found

    return wait


@pytest.fixture
def make_instance(state_path: Path) -> Callable[..., int]:
    """A row of an instance; arguments replace its columns. Returns its id."""

    def make(**values: Any) -> int:
        columns: dict[str, Any] = {
            "reservation_id": "r-1",
            "project_id": "nova",
            "user_id": "u",
            "image_id": "ami-00000001",
            "instance_type": "m1.tiny",
            "vcpus": 1,
            "memory_mb": 512,
            "disk_gb": 0,
            "security_groups": ["default"],
        }
        with session.begin() as s:
            (made,) = instances.create(s, 1, **{**columns, **values})
            return made.id

    return make


@pytest.fixture
def row() -> Callable[[int], instances.Instance]:
    """The row of an instance as it is now."""

    def read(instance_id: int) -> instances.Instance:
        with session.read() as s:
            return instances.get(s, instance_id)

    return read
