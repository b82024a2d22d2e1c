"""Engine and transactions: the one place that knows which database it is.

    with session.begin() as s:     # a transaction that may write; commits at the end, rolls back on an error
        s.add(Thing(...))
    with session.read() as s:      # one consistent view, nobody is kept waiting for it
        s.scalars(select(Thing)).all()

Invariant: the hub never waits inside the database library for a lock. SQLite runs with a busy timeout of 0, in
WAL mode; writers of this process queue on a green semaphore, and for other processes' locks a greenlet sleeps
and asks again. A write transaction takes the lock when it begins, so it never fails half way with "locked".
`synchronous=NORMAL` keeps committed data through `kill -9` of any process; a power cut may lose the last commits.
Any other database comes by URL and must speak through a driver that is pure Python, or psycopg2, which is
taught to wait in the hub. Never call RPC inside a transaction: everybody else's writes wait for its end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy import event, orm
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from nova import exception, flags, green

FLAGS = flags.FLAGS
flags.DEFINE_float(
    "sql_timeout", 10.0, "seconds to wait for the lock of the database or for a connection", least=0
)
flags.DEFINE_integer("sql_pool_size", 10, "connections to the database that are kept open", least=1)

SCHEMA_VERSION = 1
# Packages that define tables; `sync` imports them so that whoever comes first creates all.
MODELS = ("nova.db.services", "nova.db.models")
_SYNC_LOCK = 0x6E6F7661  # "nova": key of PostgreSQL's advisory lock


class Base(orm.DeclarativeBase):
    """All tables of nova."""


schema_version = sqlalchemy.Table(
    "schema_version", Base.metadata, sqlalchemy.Column("version", sqlalchemy.Integer, primary_key=True)
)


class now(FunctionElement[float]):
    """The database's own clock, in seconds since 1970: one clock for all hosts."""

    name = "nova_now"
    type = sqlalchemy.Float()
    inherit_cache = True


@compiles(now)
def _now_standard(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch from CURRENT_TIMESTAMP) AS DOUBLE PRECISION)"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    # CURRENT_TIMESTAMP stands still in a transaction; a heartbeat wants the time of its statement.
    return "CAST(extract(epoch from clock_timestamp()) AS DOUBLE PRECISION)"


class Database:
    """One engine; `begin` and `read` give transactions on it."""

    def __init__(self, url: str) -> None:
        self.url = sqlalchemy.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url)
        self._writer = green.Semaphore(1)
        self._owner: Any = None

    @contextlib.contextmanager
    def begin(self) -> Iterator[orm.Session]:
        """A transaction that may write. Raises `DatabaseUnavailable` after `sql_timeout` seconds of waiting."""
        with self._one_writer(), _plain_errors(), orm.Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                session.connection()  # takes the lock now; a session alone begins at its first statement
                yield session

    @contextlib.contextmanager
    def read(self) -> Iterator[orm.Session]:
        """A transaction that only reads. Raises `DatabaseUnavailable`."""
        with _plain_errors(), orm.Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"nova_read": True})
            yield session

    def sync(self) -> None:
        """Create what is missing of the schema. Safe when many processes do so at once.

        Raises `FlagError` where the database belongs to a newer version.
        """
        for name in MODELS:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        with self.begin() as session:
            if self.url.get_backend_name() == "postgresql":
                session.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_SYNC_LOCK)))
            # One question for all tables; create_all asks once for each.
            if not Base.metadata.tables.keys() <= set(sqlalchemy.inspect(session.connection()).get_table_names()):
                Base.metadata.create_all(session.connection())
            version = session.scalar(sqlalchemy.select(sqlalchemy.func.max(schema_version.c.version)))
            if version is None:
                session.execute(schema_version.insert().values(version=SCHEMA_VERSION))
            elif version > SCHEMA_VERSION:
                raise exception.FlagError(
                    f"the database {self.url!r} has schema {version}, this version knows {SCHEMA_VERSION}: "
                    "upgrade this host"
                )

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _one_writer(self) -> Iterator[None]:
        """SQLite has one writer at a time; those of this process wait in order, in the hub."""
        if not self.is_sqlite:
            yield
            return
        me = green.getcurrent()
        if self._owner is me:
            raise RuntimeError("begin() inside begin() would wait for itself")
        if not self._writer.acquire(timeout=FLAGS.sql_timeout):
            raise exception.DatabaseUnavailable(f"no write lock on {self.url!r} in {FLAGS.sql_timeout:g} s")
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            self._writer.release()


def _sqlite_engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    memory = url.database in (None, "", ":memory:")
    if not memory and url.database is not None:
        folder = os.path.dirname(os.path.abspath(url.database))
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise exception.FlagError(f"--sql_connection {url!r}: {folder}: {error.strerror}") from error
    # One connection for a database in memory, any number for a file: waiting for the pool could stall the hub.
    pool: dict[str, Any] = {"poolclass": sqlalchemy.StaticPool} if memory else {"max_overflow": -1}
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": 0, "check_same_thread": False}, **pool)

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # this module says BEGIN itself
        _patiently(connection, "PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begun(connection: sqlalchemy.Connection) -> None:
        reads = connection.get_execution_options().get("nova_read")
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        _patiently(raw, "BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Execute; while another process holds the lock, let the hub run and try again."""
    deadline_s = time.monotonic() + FLAGS.sql_timeout
    pause_s = 0.001
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            if time.monotonic() > deadline_s:
                raise exception.DatabaseUnavailable(f"{error} for {FLAGS.sql_timeout:g} s") from error
        green.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s = min(pause_s * 2, 0.03)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # The low byte is the primary code; the extended ones (BUSY_SNAPSHOT ...) share it.
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _server_engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    if url.get_driver_name() == "psycopg2":
        green.patch_psycopg2()
    return sqlalchemy.create_engine(
        url,
        pool_size=FLAGS.sql_pool_size,
        max_overflow=4 * FLAGS.sql_pool_size,
        pool_timeout=FLAGS.sql_timeout,
        pool_pre_ping=True,
    )


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """A database that is away or locked is `DatabaseUnavailable`, whatever the driver calls it."""
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:
        raise exception.DatabaseUnavailable(f"no free connection to the database: {error}") from error
    except sqlalchemy.exc.DBAPIError as error:
        cause = error.orig
        away = error.connection_invalidated or isinstance(error, sqlalchemy.exc.InterfaceError)
        if isinstance(cause, sqlite3.OperationalError):
            away = _is_busy(cause) or cause.sqlite_errorcode in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
        elif isinstance(error, sqlalchemy.exc.OperationalError):
            away = True
        if away:
            raise exception.DatabaseUnavailable(str(cause)) from error
        raise


_databases: dict[str, Database] = {}


def database() -> Database:
    """The database of `--sql_connection`; one engine a URL."""
    url = FLAGS.sql_connection
    found = _databases.get(url)
    if found is None:
        try:
            found = _databases[url] = Database(url)
        except (sqlalchemy.exc.ArgumentError, ModuleNotFoundError) as error:
            raise exception.FlagError(f"--sql_connection: {error}") from error
    return found


def begin() -> contextlib.AbstractContextManager[orm.Session]:
    """A transaction that may write, on the database of the flags. See `Database.begin`."""
    return database().begin()


def read() -> contextlib.AbstractContextManager[orm.Session]:
    """A transaction that only reads, on the database of the flags. See `Database.read`."""
    return database().read()


def sync() -> None:
    """Create what is missing of the schema. See `Database.sync`."""
    database().sync()


def dispose() -> None:
    """Forget all engines and close their connections; the next use opens new ones."""
    while _databases:
        _databases.popitem()[1].dispose()
