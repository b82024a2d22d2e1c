"""The `aws-chunked` body: what the client really sends, wrapped in chunks with a trailer of checksums.

Pure and fed with bytes: `feed(data)` gives the payload bytes that became known, `finish()` says that the body has
ended. boto3 wraps over TLS (STREAMING-UNSIGNED-PAYLOAD-TRAILER), other clients sign every chunk
(STREAMING-AWS4-HMAC-SHA256-PAYLOAD): each signature covers the one before, so no chunk can be changed, dropped
or moved. Source: "Signature calculations for the authorization header: transferring payload in multiple chunks".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from nova.objectstore.errors import S3Error
from nova.sigv4 import Signed

UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"

MAX_LINE_BYTES = 4096
MAX_TRAILERS = 16

_EMPTY_HASH = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class ChunkKey:
    """What signs the chunks of one request."""

    key: bytes
    signed: Signed

    def signature(self, previous: str, chunk_hash: str) -> str:
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                self.signed.timestamp,
                self.signed.scope,
                previous,
                _EMPTY_HASH,
                chunk_hash,
            )
        )
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


class ChunkedDecoder:
    """One body. With `chunk_key` every chunk's signature is checked before `finish` returns."""

    def __init__(self, chunk_key: ChunkKey | None = None) -> None:
        self.trailers: dict[str, str] = {}
        self._buffer = bytearray()
        self._state = self._size_line
        self._remaining = 0
        self._chunk_key = chunk_key
        self._previous = chunk_key.signed.signature if chunk_key else ""
        self._claimed = ""
        self._hash = hashlib.sha256()

    def feed(self, data: bytes) -> bytes:
        """Payload bytes that `data` completes. Raises `S3Error` for a body that is not aws-chunked."""
        self._buffer += data
        payload = bytearray()
        while self._state(payload):
            pass
        return bytes(payload)

    def finish(self) -> dict[str, str]:
        """The trailers; raises `S3Error` IncompleteBody where the last chunk has not been seen."""
        if self._state == self._trailer_line and not self._buffer:
            self._state = self._done
        if self._state != self._done:
            raise S3Error("IncompleteBody", "the aws-chunked body ended before its last chunk")
        return self.trailers

    # Each state consumes what it can and returns whether another state may go on.

    def _size_line(self, payload: bytearray) -> bool:
        line = self._take_line()
        if line is None:
            return False
        size, _, extension = line.partition(";")
        name, _, self._claimed = extension.partition("=")
        if self._chunk_key and name != "chunk-signature":
            raise _malformed("a chunk lacks its signature")
        try:
            self._remaining = int(size, 16)
        except ValueError:
            raise _malformed(f"{size[:20]!r} is not the size of a chunk") from None
        if self._remaining < 0:
            raise _malformed("a chunk has a negative size")
        if self._remaining:
            self._state = self._payload
        else:
            self._check_signature()
            self._state = self._trailer_line
        return True

    def _payload(self, payload: bytearray) -> bool:
        part = self._buffer[: self._remaining]
        del self._buffer[: len(part)]
        payload += part
        self._remaining -= len(part)
        if self._chunk_key:
            self._hash.update(part)
        if self._remaining:
            return False
        self._state = self._payload_end
        return True

    def _payload_end(self, payload: bytearray) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise _malformed("a chunk is longer than it said")
        del self._buffer[:2]
        self._check_signature()
        self._state = self._size_line
        return True

    def _trailer_line(self, payload: bytearray) -> bool:
        line = self._take_line()
        if line is None:
            return False
        if not line:
            self._state = self._done
            return True
        name, colon, value = line.partition(":")
        if not colon or len(self.trailers) >= MAX_TRAILERS:
            raise _malformed("the trailer is not a list of headers")
        self.trailers[name.strip().lower()] = value.strip()
        return True

    def _done(self, payload: bytearray) -> bool:
        if self._buffer.strip(b"\r\n"):
            raise _malformed("bytes follow the last chunk")
        self._buffer.clear()
        return False

    def _take_line(self) -> str | None:
        end = self._buffer.find(b"\r\n")
        if end > MAX_LINE_BYTES or (end < 0 and len(self._buffer) > MAX_LINE_BYTES):
            raise _malformed("a line of the chunked body is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 2]
        return line

    def _check_signature(self) -> None:
        if self._chunk_key is None:
            return
        expected = self._chunk_key.signature(self._previous, self._hash.hexdigest())
        if not hmac.compare_digest(expected, self._claimed):
            raise S3Error("SignatureDoesNotMatch", "a chunk was changed after it was signed")
        self._previous, self._hash = expected, hashlib.sha256()


def _malformed(message: str) -> S3Error:
    return S3Error("InvalidRequest", f"the body is not aws-chunked: {message}")
