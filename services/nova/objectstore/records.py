"""What the index knows, as values: buckets, objects, uploads and their parts; and their rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from sqlite3 import Row
from typing import Any

from nova.objectstore.blobs import Segment


@dataclass(frozen=True)
class Bucket:
    name: str
    owner: str
    created: datetime

    @classmethod
    def of(cls, row: Row) -> Bucket:
        return cls(row["name"], row["owner"], _time(row["created"]))


@dataclass(frozen=True)
class StoredObject:
    key: bytes
    etag: str  # without quotes
    size: int
    modified: datetime
    headers: dict[str, str] = field(default_factory=dict)  # Content-Type, x-amz-meta-*, as they are given back
    checksums: dict[str, str] = field(default_factory=dict)  # algorithm -> base64
    segments: tuple[Segment, ...] = ()

    @classmethod
    def of(cls, row: Row) -> StoredObject:
        return cls(
            key=row["key"],
            etag=row["etag"],
            size=row["size"],
            modified=_time(row["modified"]),
            headers=json.loads(row["headers"]),
            checksums=json.loads(row["checksums"]),
            segments=tuple(Segment(*segment) for segment in json.loads(row["segments"])),
        )

    def row(self) -> tuple[Any, ...]:
        """The columns after `bucket`."""
        return (
            self.key,
            self.etag,
            self.size,
            self.modified.timestamp(),
            json.dumps(self.headers),
            json.dumps(self.checksums),
            json.dumps([[segment.blob, segment.size] for segment in self.segments]),
        )

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

    @classmethod
    def of(cls, row: Row) -> Upload:
        headers = json.loads(row["headers"])
        return cls(row["id"], row["bucket"], row["key"], _time(row["started"]), headers, row["algorithm"])

    def row(self) -> tuple[Any, ...]:
        headers = json.dumps(self.headers)
        return self.id, self.bucket, self.key, self.started.timestamp(), headers, self.algorithm


@dataclass(frozen=True)
class Part:
    number: int
    etag: str
    size: int
    modified: datetime
    blob: str
    checksum: str | None

    @classmethod
    def of(cls, row: Row) -> Part:
        modified = _time(row["modified"])
        return cls(row["number"], row["etag"], row["size"], modified, row["blob"], row["checksum"])

    def row(self) -> tuple[Any, ...]:
        """The columns after `upload`."""
        return self.number, self.etag, self.size, self.modified.timestamp(), self.blob, self.checksum


def _time(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)
