"""The calls that a service has begun, on disk: what makes a call take effect once.

A row is written before a call begins and completed with its reply before the reply is sent. So a request that
comes twice gets the reply it had, and after a crash the rows without a reply are the calls that had begun.
SQLite writes in a native thread, so that the hub never waits for a disk, and everything that arrives during one
commit goes into the next (`synchronous=FULL`: a row survives a power cut). It is kept for what needs it, calls
to one host and methods marked long-running: calls on a shared queue are acknowledged late instead and cost no
disk access at all.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nova import green
from nova.rpc.errors import RpcError

LOG = logging.getLogger(__name__)

KEEP_S = 24 * 3600.0
PRUNE_EVERY_S = 3600.0
PRUNE_ROWS = 5000
BUSY_S = 10.0

_SCHEMA = """
create table if not exists calls (
    unique_id text primary key, consumer text not null, body blob not null, correlation_id text, reply_to text,
    attempts integer not null, begun real not null, reply blob, replied integer not null default 0
) without rowid
"""
_COLUMNS = "unique_id, consumer, body, correlation_id, reply_to, attempts, reply"


class JournalBroken(RpcError):
    """The journal cannot be written; nothing is begun without it."""


@dataclass(frozen=True, slots=True)
class Row:
    """`attempts` counts how often the call has begun; `reply` is None until it has ended."""

    unique_id: str
    consumer: str
    body: bytes
    correlation_id: str | None
    reply_to: str | None
    attempts: int = 1
    reply: bytes | None = None


Operation = Callable[[sqlite3.Connection], Any]


class Journal:
    """One file; the methods wait for the disk, in their own greenlet only."""

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._pending: list[tuple[Operation, green.Event]] = []
        self._is_committing = False
        self._pruned = 0.0

    def open(self) -> list[Row]:
        """The calls that an earlier process began and did not answer. Raises `JournalBroken`."""
        try:
            return green.tpool.execute(self._open)
        except (sqlite3.Error, OSError) as error:
            raise JournalBroken(f"{self.path}: {error}") from error

    def _open(self) -> list[Row]:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        # One commit at a time, in whichever thread of the pool: sqlite3's own thread check would forbid that.
        database = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=full")
        database.execute(_SCHEMA)
        self._database = database
        self._prune(database)
        rows = database.execute(f"select {_COLUMNS} from calls where replied = 0 order by begun").fetchall()
        return [Row(*values) for values in rows]

    def begin(self, row: Row) -> Row | None:
        """None: written, the call may begin. Otherwise the row of the same call that is there already."""
        values = (row.unique_id, row.consumer, row.body, row.correlation_id, row.reply_to, self._clock())

        def write(database: sqlite3.Connection) -> Row | None:
            done = database.execute(
                "insert or ignore into calls"
                " (unique_id, consumer, body, correlation_id, reply_to, attempts, begun)"
                " values (?, ?, ?, ?, ?, 1, ?)",
                values,
            )
            return None if done.rowcount else _find(database, row.unique_id)

        return self._submit(write)

    def begin_again(self, unique_id: str) -> None:
        """The call begins once more after a crash."""
        self._submit(lambda database: _change(database, "attempts = attempts + 1", unique_id))

    def finish(self, unique_id: str, reply: bytes) -> None:
        """The call has ended with this reply, empty for a cast."""
        self._submit(lambda database: _change(database, "reply = ?", unique_id, reply))

    def replied(self, unique_id: str) -> None:
        """The reply is on its way; does not wait."""
        self._add(lambda database: _change(database, "replied = 1", unique_id))

    def close(self) -> None:
        """After what is pending."""
        if self._database is None:
            return
        self._submit(lambda database: None)
        database, self._database = self._database, None
        green.tpool.execute(database.close)

    def _submit(self, operation: Operation) -> Any:
        return self._add(operation).wait()

    def _add(self, operation: Operation) -> green.Event:
        done = green.Event()
        self._pending.append((operation, done))
        if not self._is_committing:
            self._is_committing = True
            green.spawn_n(self._commit_all)
        return done

    def _commit_all(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                try:
                    results = green.tpool.execute(self._commit, [operation for operation, _ in batch])
                except (sqlite3.Error, OSError, JournalBroken) as error:
                    LOG.error("journal %s: %s; the calls of this commit are not begun", self.path, error)
                    for _, done in batch:
                        done.send_exception(JournalBroken(f"{self.path}: {error}"))
                else:
                    for (_, done), result in zip(batch, results, strict=True):
                        done.send(result)
        finally:
            self._is_committing = False

    def _commit(self, operations: list[Operation]) -> list[Any]:
        """In a native thread: one transaction for all."""
        database = self._database
        if database is None:
            raise JournalBroken("closed")
        database.execute("begin immediate")
        try:
            results = [operation(database) for operation in operations]
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise
        if self._clock() - self._pruned > PRUNE_EVERY_S:
            self._prune(database)
        return results

    def _prune(self, database: sqlite3.Connection) -> None:
        """Forget answered calls after a day, a batch at a time."""
        self._pruned = self._clock()
        database.execute(
            "delete from calls where unique_id in"
            " (select unique_id from calls where replied = 1 and begun < ? limit ?)",
            (self._pruned - KEEP_S, PRUNE_ROWS),
        )


def _find(database: sqlite3.Connection, unique_id: str) -> Row | None:
    values = database.execute(f"select {_COLUMNS} from calls where unique_id = ?", (unique_id,)).fetchone()
    return Row(*values) if values else None


def _change(database: sqlite3.Connection, change: str, unique_id: str, *values: Any) -> None:
    database.execute(f"update calls set {change} where unique_id = ?", (*values, unique_id))
