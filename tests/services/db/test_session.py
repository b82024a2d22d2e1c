"""Transactions on a real SQLite file, with other processes and greenlets in the way."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from nova import exception, flags, green
from nova.db import services, session

FLAGS = flags.FLAGS


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "deep" / "nova.sqlite"
    with FLAGS.override(sql_connection=f"sqlite:///{file}", sql_timeout=5.0):
        session.sync()
        yield file
        session.dispose()


def count() -> int:
    with session.read() as s:
        return s.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(services.Service)) or 0


def add(host: str) -> services.Service:
    return services.Service(host=host, binary="nova-x", topic="x")


def test_a_block_that_ends_commits_and_one_that_raises_rolls_back(path: Path) -> None:
    with session.begin() as s:
        s.add(add("kept"))
    with contextlib.suppress(ValueError), session.begin() as s:
        s.add(add("lost"))
        s.flush()
        raise ValueError
    assert [row.host for row in services.get_all()] == ["kept"]


def test_waiting_for_another_process_lets_the_hub_run(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pulses = []

    def pulse() -> None:
        while len(pulses) < 20:
            pulses.append(time.monotonic())
            green.sleep(0.005)
        other.execute("COMMIT")

    green.spawn(pulse)
    with session.begin() as s:
        s.add(add("h"))
    assert len(pulses) == 20
    assert max(b - a for a, b in itertools.pairwise(pulses)) < 0.2
    assert count() == 1


def test_a_lock_held_for_too_long_is_a_database_that_is_unavailable(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with FLAGS.override(sql_timeout=0.05), pytest.raises(exception.DatabaseUnavailable, match="locked"):
        with session.begin():
            pass
    other.execute("ROLLBACK")
    other.close()


def test_readers_do_not_wait_for_a_writer(path: Path) -> None:
    with session.begin() as s:
        s.add(add("h"))
        s.flush()
        assert green.spawn(count).wait() == 0
    assert count() == 1


def test_greenlets_that_write_take_turns(path: Path) -> None:
    def write(number: int) -> None:
        with session.begin() as s:
            s.add(add(f"h{number}"))
            s.flush()
            green.sleep(0)

    pool = green.GreenPool()
    for number in range(30):
        pool.spawn(write, number)
    pool.waitall()
    assert count() == 30


def test_a_transaction_inside_a_transaction_is_refused_rather_than_hanging(path: Path) -> None:
    with session.begin(), pytest.raises(RuntimeError, match="inside"):
        with session.begin():
            pass


def test_processes_that_create_the_schema_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "nova.sqlite"
    code = (
        "from nova import flags; from nova.db import session, services;"
        f"flags.FLAGS(['x', '--sql_connection=sqlite:///{file}']); session.sync();"
        "services.report('h', 'b', 't')"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(5)]
    errors = [process.communicate(timeout=30)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 5, errors
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT report_count FROM services").fetchall() == [(4,)]
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(session.SCHEMA_VERSION,)]


def test_a_database_of_a_newer_version_is_refused_for_good(path: Path) -> None:
    with session.begin() as s:
        s.execute(session.schema_version.update().values(version=session.SCHEMA_VERSION + 1))
    with pytest.raises(exception.FlagError, match="upgrade"):
        session.sync()


@pytest.mark.parametrize("url", ["nonsense", "nodialect://x/y", "sqlite:////proc/nope/x.sqlite"])
def test_a_url_that_cannot_work_is_a_flag_error(url: str) -> None:
    with FLAGS.override(sql_connection=url), pytest.raises(exception.FlagError, match="sql_connection"):
        session.sync()


def test_committed_rows_survive_kill_nine(tmp_path: Path) -> None:
    file = tmp_path / "nova.sqlite"
    code = (
        "import os; from nova import flags; from nova.db import session, services;"
        f"flags.FLAGS(['x', '--sql_connection=sqlite:///{file}']); session.sync();"
        "services.report('h', 'b', 't'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == -9
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT host FROM services").fetchall() == [("h",)]
