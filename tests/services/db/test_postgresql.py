"""The same transactions on PostgreSQL: a server of the test's own, through a driver that is pure Python."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from nova import exception, flags, green
from nova.db import services, session

FLAGS = flags.FLAGS
HOMES = [Path(f"/usr/lib/postgresql/{version}/bin") for version in (15, 16, 17)]


def program(name: str) -> str | None:
    return next((str(home / name) for home in HOMES if (home / name).exists()), None) or shutil.which(name)


def missing() -> str:
    if importlib.util.find_spec("pg8000") is None:
        return "pg8000 is not installed"
    return "" if program("initdb") and program("postgres") else "initdb and postgres are not installed"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that ends with this module."""
    reason = missing()
    if reason and "postgresql" in os.environ.get("NOVA_TEST_REQUIRE", ""):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    # The server refuses root, and its user may not enter root's temporary directories.
    who: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="nova-postgresql-") as folder:
        if who:
            shutil.chown(folder, **who)
        yield from serve(folder, who)


def serve(folder: str, who: dict[str, Any]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data = f"{folder}/data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([program("initdb"), "-D", data, "-A", "trust", "-N", "-U", "nova"], check=True, **quiet, **who)
    command = [program("postgres"), "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    running = subprocess.Popen(command, **quiet, **who)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield f"postgresql+pg8000://nova@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait()


@pytest.fixture
def database(server: str) -> Iterator[None]:
    with FLAGS.override(sql_connection=server, sql_timeout=5.0):
        for _ in range(100):  # it accepts before it is ready
            try:
                session.sync()
                break
            except exception.DatabaseUnavailable:
                time.sleep(0.05)
        yield
        with session.begin() as s:
            s.execute(sqlalchemy.delete(services.Service))
        session.dispose()


def test_heartbeats_are_counted_by_the_clock_of_the_server(database: None) -> None:
    services.report("h", "nova-x", "x")
    services.report("h", "nova-x", "x", state="ready")
    row = services.get_by_args("h", "nova-x")
    assert (row.report_count, row.state) == (1, "ready")
    assert -0.1 < row.age_s < 5


def test_the_schema_may_be_created_again(database: None) -> None:
    session.sync()
    with session.read() as s:
        assert s.scalars(sqlalchemy.select(session.schema_version.c.version)).all() == [session.SCHEMA_VERSION]


def test_a_block_that_raises_rolls_back(database: None) -> None:
    with contextlib.suppress(ValueError), session.begin() as s:
        s.add(services.Service(host="lost", binary="nova-x", topic="x"))
        s.flush()
        raise ValueError
    assert services.get_all() == []


def test_a_server_that_is_not_there_is_a_database_that_is_unavailable() -> None:
    if importlib.util.find_spec("pg8000") is None:
        pytest.skip("pg8000 is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with FLAGS.override(sql_connection=f"postgresql+pg8000://nova@127.0.0.1:{port}/x"):
        with pytest.raises(exception.DatabaseUnavailable):
            green.spawn(session.sync).wait()
        session.dispose()
