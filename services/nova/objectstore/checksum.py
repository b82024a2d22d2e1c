"""The checksums of a body: computed while it streams, compared with what the client announced. Pure.

MD5 makes the ETag, SHA-256 is what SigV4 signed, and `x-amz-checksum-*` is the client's own (boto3: CRC-32).
CRC-32C and CRC-64/NVME would need a C extension to keep up with a disk, so they are refused, not ignored: whoever
sends one relies on it. Source: "Checking object integrity" in the S3 documentation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping
from typing import Protocol

from nova.objectstore.errors import S3Error

PREFIX = "x-amz-checksum-"
SUPPORTED = ("crc32", "sha1", "sha256")
_UNSUPPORTED = ("crc32c", "crc64nvme", "md5", "sha512", "xxhash3", "xxhash64", "xxhash128")


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Crc32:
    """zlib's CRC-32 with the interface of hashlib."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def new(algorithm: str) -> Hash:
    if algorithm == "crc32":
        return Crc32()
    return hashlib.new(algorithm, usedforsecurity=False)


def algorithm_of(headers: Mapping[str, str]) -> str | None:
    """The client's checksum algorithm, announced by its header or, for a trailer, in `x-amz-trailer`.

    Raises `S3Error` InvalidRequest where it announces one that this store cannot check.
    """
    named = {name.removeprefix(PREFIX) for name in headers if name.startswith(PREFIX)}
    trailer = headers.get("x-amz-trailer", "").strip().lower()
    if trailer.startswith(PREFIX):
        named.add(trailer.removeprefix(PREFIX))
    refused = sorted(named & set(_UNSUPPORTED))
    if refused:
        raise S3Error("InvalidRequest", f"checksum {refused[0]} is not supported; use {', '.join(SUPPORTED)}")
    found = sorted(named & set(SUPPORTED))
    if len(found) > 1:
        raise S3Error("InvalidRequest", f"one checksum a request, not {' and '.join(found)}")
    return found[0] if found else None


class Digests:
    """Everything that is computed over one body in one pass."""

    def __init__(self, algorithm: str | None) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._own = new(algorithm) if algorithm else None

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._md5.update(data)
        self._sha256.update(data)
        if self._own:
            self._own.update(data)

    @property
    def etag(self) -> str:
        return self._md5.hexdigest()

    @property
    def checksum(self) -> str | None:
        """The client's checksum in base64, as its header has it."""
        return base64.b64encode(self._own.digest()).decode() if self._own else None

    def check_payload_hash(self, expected: str) -> None:
        """Raises `S3Error` where SigV4 signed another body."""
        if self._sha256.hexdigest() != expected.lower():
            raise S3Error("XAmzContentSHA256Mismatch", "the body does not have the SHA-256 that was signed")

    def check_announced(self, headers: Mapping[str, str]) -> None:
        """Raises `S3Error` BadDigest where `headers` (or trailers) announce another body."""
        announced = headers.get("content-md5")
        if announced is not None and _decoded(announced) != self._md5.digest():
            raise S3Error("BadDigest", "the body does not have the MD5 in Content-MD5")
        if self._own:
            announced = headers.get(PREFIX + str(self.algorithm))
            if announced is not None and _decoded(announced) != self._own.digest():
                raise S3Error("BadDigest", f"the body does not have the announced {self.algorithm}")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise S3Error("InvalidDigest", f"{text[:60]!r} is not base64") from None
