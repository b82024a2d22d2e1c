"""The index: which buckets, objects and uploads there are, and which blobs hold them. SQLite, one file.

It lies beside the blobs so that a folder is a whole store. Each method is one transaction; a method that drops
blobs returns their names, and its caller removes the files afterwards, so a crash between the two leaves a
stray file for the sweep, never an object without bytes. Everything here blocks, and one index serves one caller
at a time (see `store`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from nova.objectstore.errors import S3Error, no_such_bucket, no_such_key, no_such_upload
from nova.objectstore.records import Bucket, Part, StoredObject, Upload

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE buckets (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE objects (
    bucket TEXT NOT NULL REFERENCES buckets (name), key BLOB NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL,
    modified REAL NOT NULL, headers TEXT NOT NULL, checksums TEXT NOT NULL, segments TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL REFERENCES buckets (name), key BLOB NOT NULL, started REAL NOT NULL,
    headers TEXT NOT NULL, algorithm TEXT
);
CREATE INDEX uploads_by_key ON uploads (bucket, key, id);
CREATE TABLE parts (
    upload TEXT NOT NULL REFERENCES uploads (id) ON DELETE CASCADE, number INTEGER NOT NULL, etag TEXT NOT NULL,
    size INTEGER NOT NULL, modified REAL NOT NULL, blob TEXT NOT NULL, checksum TEXT,
    PRIMARY KEY (upload, number)
);
"""


class Index:
    """All tables of one file; `close` when done."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path)
        self.buckets = Buckets(self._db)
        self.objects = Objects(self._db, self.buckets)
        self.uploads = Uploads(self._db, self.buckets, self.objects)

    def close(self) -> None:
        self._db.close()

    def blobs(self) -> set[str]:
        """Every blob that something refers to."""
        names = {row["blob"] for row in self._db.execute("SELECT blob FROM parts")}
        for row in self._db.execute("SELECT segments FROM objects"):
            names |= {name for name, _ in json.loads(row["segments"])}
        return names


class Database:
    """The connection, and transactions on it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
        )
        with self.transaction():
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise RuntimeError(f"{path} has schema {version}, this nova-objectstore knows {SCHEMA_VERSION}")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


class Buckets:
    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self, owner: str | None) -> list[Bucket]:
        rows = self._db.execute(
            "SELECT * FROM buckets WHERE ?1 IS NULL OR owner = ?1 ORDER BY name", (owner,)
        ).fetchall()
        return [Bucket.of(row) for row in rows]

    def get(self, name: str) -> Bucket:
        row = self._db.execute("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise no_such_bucket(name)
        return Bucket.of(row)

    def create(self, name: str, owner: str, now: datetime) -> bool:
        """False where it exists already; whose it is, is for the caller to look at."""
        with self._db.transaction():
            cursor = self._db.execute(
                "INSERT OR IGNORE INTO buckets VALUES (?, ?, ?)", (name, owner, now.timestamp())
            )
            return cursor.rowcount == 1

    def delete(self, name: str) -> list[str]:
        """Returns the blobs of its unfinished uploads. Raises `S3Error` NoSuchBucket, BucketNotEmpty."""
        with self._db.transaction():
            self.get(name)
            if self._db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                raise S3Error("BucketNotEmpty", f"the bucket {name} holds objects; delete them first")
            dropped = self._db.execute(
                "SELECT blob FROM parts JOIN uploads ON uploads.id = parts.upload WHERE bucket = ?", (name,)
            ).fetchall()
            self._db.execute("DELETE FROM uploads WHERE bucket = ?", (name,))
            self._db.execute("DELETE FROM buckets WHERE name = ?", (name,))
        return [row["blob"] for row in dropped]


class Objects:
    def __init__(self, db: Database, buckets: Buckets) -> None:
        self._db = db
        self._buckets = buckets

    def get(self, bucket: str, key: bytes) -> StoredObject:
        """Raises `S3Error` NoSuchBucket, NoSuchKey."""
        found = self.find(bucket, key)
        if found is None:
            self._buckets.get(bucket)
            raise no_such_key(key.decode())
        return found

    def range(self, bucket: str, start: bytes, limit: int) -> list[StoredObject]:
        rows = self._db.execute(
            "SELECT * FROM objects WHERE bucket = ? AND key >= ? ORDER BY key LIMIT ?", (bucket, start, limit)
        ).fetchall()
        return [StoredObject.of(row) for row in rows]

    def put(
        self, bucket: str, new: StoredObject, guard: Callable[[StoredObject | None], None] | None = None
    ) -> list[str]:
        """Store an object; returns the blobs of the old one, which `guard` sees first and may keep."""
        with self._db.transaction():
            self._buckets.get(bucket)
            old = self.find(bucket, new.key)
            if guard:
                guard(old)
            self.write(bucket, new)
        return old.blobs if old else []

    def delete(self, bucket: str, keys: list[bytes]) -> list[str]:
        """Delete what is there of `keys`; returns its blobs."""
        dropped: list[str] = []
        with self._db.transaction():
            for key in keys:
                old = self.find(bucket, key)
                if old:
                    self._db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
                    dropped += old.blobs
        return dropped

    def find(self, bucket: str, key: bytes) -> StoredObject | None:
        row = self._db.execute("SELECT * FROM objects WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return StoredObject.of(row) if row else None

    def write(self, bucket: str, new: StoredObject) -> None:
        row = (bucket, *new.row())
        self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


class Uploads:
    """Multipart uploads and their parts."""

    def __init__(self, db: Database, buckets: Buckets, objects: Objects) -> None:
        self._db = db
        self._buckets = buckets
        self._objects = objects

    def create(self, upload: Upload) -> None:
        with self._db.transaction():
            self._buckets.get(upload.bucket)
            self._db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)", upload.row())

    def get(self, bucket: str, key: bytes, upload_id: str) -> Upload:
        """Raises `S3Error` NoSuchUpload."""
        row = self._db.execute(
            "SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?", (upload_id, bucket, key)
        ).fetchone()
        if row is None:
            raise no_such_upload(upload_id)
        return Upload.of(row)

    def all(self, bucket: str, prefix: bytes, after: tuple[bytes, str], limit: int) -> list[Upload]:
        """Uploads in order of key and id, after the pair `after`."""
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) AND key >= ? AND key < ?"
            " ORDER BY key, id LIMIT ?",
            (bucket, *after, prefix, prefix + b"\xff", limit),
        ).fetchall()
        return [Upload.of(row) for row in rows]

    def put_part(self, upload: Upload, part: Part) -> list[str]:
        """Store a part in place of the one of the same number, whose blob is returned."""
        with self._db.transaction():
            self.get(upload.bucket, upload.key, upload.id)
            old = self._db.execute(
                "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload.id, part.number)
            ).fetchall()
            row = (upload.id, *part.row())
            self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return [row["blob"] for row in old]

    def parts(self, upload_id: str, after: int = 0, limit: int = 10000) -> list[Part]:
        rows = self._db.execute(
            "SELECT * FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
            (upload_id, after, limit),
        ).fetchall()
        return [Part.of(row) for row in rows]

    def complete(
        self,
        upload: Upload,
        build: Callable[[list[Part]], StoredObject],
        guard: Callable[[StoredObject | None], None] | None = None,
    ) -> tuple[StoredObject, list[str]]:
        """Turn an upload into the object that `build` makes of its parts; returns it and the blobs left over."""
        with self._db.transaction():
            self.get(upload.bucket, upload.key, upload.id)
            parts = self.parts(upload.id)
            new = build(parts)
            old = self._objects.find(upload.bucket, upload.key)
            if guard:
                guard(old)
            self._objects.write(upload.bucket, new)
            self._db.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        unused = {part.blob for part in parts} - set(new.blobs)
        return new, [*unused, *(old.blobs if old else [])]

    def abort(self, upload: Upload) -> list[str]:
        """Forget an upload; returns its blobs. Raises `S3Error` NoSuchUpload."""
        with self._db.transaction():
            self.get(upload.bucket, upload.key, upload.id)
            dropped = [part.blob for part in self.parts(upload.id)]
            self._db.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        return dropped
