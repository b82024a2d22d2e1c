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
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nova.objectstore.blobs import Segment
from nova.objectstore.errors import S3Error, no_such_bucket, no_such_key, no_such_upload

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


@dataclass(frozen=True)
class Bucket:
    name: str
    owner: str
    created: datetime


@dataclass(frozen=True)
class StoredObject:
    key: bytes
    etag: str  # without quotes
    size: int
    modified: datetime
    headers: dict[str, str] = field(default_factory=dict)  # Content-Type, x-amz-meta-*, as they are given back
    checksums: dict[str, str] = field(default_factory=dict)  # algorithm -> base64
    segments: tuple[Segment, ...] = ()

    @property
    def blobs(self) -> list[str]:
        return [segment.blob for segment in self.segments]


@dataclass(frozen=True)
class Upload:
    id: str
    bucket: str
    key: bytes
    started: datetime
    headers: dict[str, str]
    algorithm: str | None


@dataclass(frozen=True)
class Part:
    number: int
    etag: str
    size: int
    modified: datetime
    blob: str
    checksum: str | None


class Index:
    """One SQLite file; `close` when done."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise RuntimeError(f"{path} has schema {version}, this nova-objectstore knows {SCHEMA_VERSION}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def blobs(self) -> set[str]:
        """Every blob that something refers to."""
        names = {row["blob"] for row in self._db.execute("SELECT blob FROM parts")}
        for row in self._db.execute("SELECT segments FROM objects"):
            names |= {name for name, _ in json.loads(row["segments"])}
        return names

    # Buckets

    def buckets(self, owner: str | None) -> list[Bucket]:
        rows = self._db.execute(
            "SELECT * FROM buckets WHERE ?1 IS NULL OR owner = ?1 ORDER BY name", (owner,)
        ).fetchall()
        return [_bucket(row) for row in rows]

    def bucket(self, name: str) -> Bucket:
        row = self._db.execute("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise no_such_bucket(name)
        return _bucket(row)

    def create_bucket(self, name: str, owner: str, now: datetime) -> bool:
        """False where it exists already; whose it is, is for the caller to look at."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT OR IGNORE INTO buckets VALUES (?, ?, ?)", (name, owner, now.timestamp())
            )
            return cursor.rowcount == 1

    def delete_bucket(self, name: str) -> list[str]:
        """Returns the blobs of its unfinished uploads. Raises `S3Error` NoSuchBucket, BucketNotEmpty."""
        with self._transaction():
            self.bucket(name)
            if self._db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                raise S3Error("BucketNotEmpty", f"the bucket {name} holds objects; delete them first")
            dropped = self._db.execute(
                "SELECT blob FROM parts JOIN uploads ON uploads.id = parts.upload WHERE bucket = ?", (name,)
            ).fetchall()
            self._db.execute("DELETE FROM uploads WHERE bucket = ?", (name,))
            self._db.execute("DELETE FROM buckets WHERE name = ?", (name,))
        return [row["blob"] for row in dropped]

    # Objects

    def get(self, bucket: str, key: bytes) -> StoredObject:
        """Raises `S3Error` NoSuchBucket, NoSuchKey."""
        found = self._find(bucket, key)
        if found is None:
            self.bucket(bucket)
            raise no_such_key(key.decode())
        return found

    def range(self, bucket: str, start: bytes, limit: int) -> list[StoredObject]:
        rows = self._db.execute(
            "SELECT * FROM objects WHERE bucket = ? AND key >= ? ORDER BY key LIMIT ?", (bucket, start, limit)
        ).fetchall()
        return [_object(row) for row in rows]

    def put(
        self, bucket: str, new: StoredObject, guard: Callable[[StoredObject | None], None] | None = None
    ) -> list[str]:
        """Store an object; returns the blobs of the old one, which `guard` sees first and may keep."""
        with self._transaction():
            self.bucket(bucket)
            old = self._find(bucket, new.key)
            if guard:
                guard(old)
            self._put(bucket, new)
        return old.blobs if old else []

    def delete(self, bucket: str, keys: list[bytes]) -> list[str]:
        """Delete what is there of `keys`; returns its blobs."""
        dropped: list[str] = []
        with self._transaction():
            for key in keys:
                old = self._find(bucket, key)
                if old:
                    self._db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
                    dropped += old.blobs
        return dropped

    def _find(self, bucket: str, key: bytes) -> StoredObject | None:
        row = self._db.execute("SELECT * FROM objects WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return _object(row) if row else None

    def _put(self, bucket: str, new: StoredObject) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                bucket,
                new.key,
                new.etag,
                new.size,
                new.modified.timestamp(),
                json.dumps(new.headers),
                json.dumps(new.checksums),
                json.dumps([list(asdict(segment).values()) for segment in new.segments]),
            ),
        )

    # Multipart uploads

    def create_upload(self, upload: Upload) -> None:
        with self._transaction():
            self.bucket(upload.bucket)
            self._db.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
                (
                    upload.id,
                    upload.bucket,
                    upload.key,
                    upload.started.timestamp(),
                    json.dumps(upload.headers),
                    upload.algorithm,
                ),
            )

    def upload(self, bucket: str, key: bytes, upload_id: str) -> Upload:
        """Raises `S3Error` NoSuchUpload."""
        row = self._db.execute(
            "SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?", (upload_id, bucket, key)
        ).fetchone()
        if row is None:
            raise no_such_upload(upload_id)
        return _upload(row)

    def uploads(self, bucket: str, prefix: bytes, after: tuple[bytes, str], limit: int) -> list[Upload]:
        """Uploads in order of key and id, after the pair `after`."""
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) AND key >= ? AND key < ?"
            " ORDER BY key, id LIMIT ?",
            (bucket, *after, prefix, prefix + b"\xff", limit),
        ).fetchall()
        return [_upload(row) for row in rows]

    def put_part(self, upload: Upload, part: Part) -> list[str]:
        """Store a part in place of the one of the same number, whose blob is returned."""
        with self._transaction():
            self.upload(upload.bucket, upload.key, upload.id)
            old = self._db.execute(
                "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload.id, part.number)
            ).fetchall()
            self._db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    upload.id,
                    part.number,
                    part.etag,
                    part.size,
                    part.modified.timestamp(),
                    part.blob,
                    part.checksum,
                ),
            )
        return [row["blob"] for row in old]

    def parts(self, upload_id: str, after: int = 0, limit: int = 10000) -> list[Part]:
        rows = self._db.execute(
            "SELECT * FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
            (upload_id, after, limit),
        ).fetchall()
        return [_part(row) for row in rows]

    def complete_upload(
        self,
        upload: Upload,
        build: Callable[[list[Part]], StoredObject],
        guard: Callable[[StoredObject | None], None] | None = None,
    ) -> tuple[StoredObject, list[str]]:
        """Turn an upload into the object that `build` makes of its parts; returns it and the blobs left over."""
        with self._transaction():
            self.upload(upload.bucket, upload.key, upload.id)
            parts = self.parts(upload.id)
            new = build(parts)
            old = self._find(upload.bucket, upload.key)
            if guard:
                guard(old)
            self._put(upload.bucket, new)
            self._db.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        unused = {part.blob for part in parts} - set(new.blobs)
        return new, [*unused, *(old.blobs if old else [])]

    def abort_upload(self, upload: Upload) -> list[str]:
        """Forget an upload; returns its blobs. Raises `S3Error` NoSuchUpload."""
        with self._transaction():
            self.upload(upload.bucket, upload.key, upload.id)
            dropped = [part.blob for part in self.parts(upload.id)]
            self._db.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        return dropped


def _time(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def _bucket(row: sqlite3.Row) -> Bucket:
    return Bucket(row["name"], row["owner"], _time(row["created"]))


def _object(row: sqlite3.Row) -> StoredObject:
    return StoredObject(
        key=row["key"],
        etag=row["etag"],
        size=row["size"],
        modified=_time(row["modified"]),
        headers=json.loads(row["headers"]),
        checksums=json.loads(row["checksums"]),
        segments=tuple(Segment(*segment) for segment in json.loads(row["segments"])),
    )


def _upload(row: sqlite3.Row) -> Upload:
    return Upload(
        row["id"], row["bucket"], row["key"], _time(row["started"]), json.loads(row["headers"]), row["algorithm"]
    )


def _part(row: sqlite3.Row) -> Part:
    return Part(row["number"], row["etag"], row["size"], _time(row["modified"]), row["blob"], row["checksum"])
