"""Receiving a body: from the socket through its framing and digests into a blob.

The body is never in memory as a whole. The blob becomes durable only when its length, the hash that was signed
and every announced checksum are right; otherwise nothing of it stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nova import green, sigv4
from nova.objectstore import checksum
from nova.objectstore.blobs import Segment, Writer
from nova.objectstore.checksum import Digests
from nova.objectstore.chunked import SIGNED_CHUNKS, UNSIGNED_TRAILER, ChunkedDecoder, ChunkKey
from nova.objectstore.errors import S3Error
from nova.objectstore.request import S3Request
from nova.objectstore.store import READ_BYTES, Store

MAX_OBJECT_BYTES = 5 * 1024**3  # S3: the largest single PUT
MAX_DOCUMENT_BYTES = 2 * 1024**2  # a CompleteMultipartUpload of 10 000 parts has about 1.5 MB


@dataclass(frozen=True)
class Received:
    """A body that has arrived: its blob and what was computed over it."""

    segment: Segment
    etag: str
    algorithm: str | None
    checksum: str | None

    @property
    def checksums(self) -> dict[str, str]:
        return {self.algorithm: self.checksum} if self.algorithm and self.checksum else {}


def to_blob(store: Store, request: S3Request, algorithm: str | None = None) -> Received:
    """Store the request's body; `algorithm` is the checksum to keep where the request names none.

    Raises `S3Error`, and then nothing is left of the body.
    """
    digests = Digests(checksum.algorithm_of(request.headers) or algorithm)
    writer = store.new_blob(digests)
    try:
        trailers = _fill(store, writer, request)
        _check(digests, request, trailers)
        segment = store.commit(writer)
    except BaseException:
        store.discard(writer)
        raise
    return Received(segment, digests.etag, digests.algorithm, digests.checksum)


def to_memory(request: S3Request) -> bytes:
    """A small body, such as an XML document. Raises `S3Error`."""
    digests = Digests(checksum.algorithm_of(request.headers))
    parts = []
    for data in _pieces(request, MAX_DOCUMENT_BYTES):
        digests.update(data)
        parts.append(data)
    _check(digests, request, {})
    return b"".join(parts)


def _fill(store: Store, writer: Writer, request: S3Request) -> dict[str, str]:
    """Write the payload; returns the trailers of a chunked body."""
    hash_of_payload = request.headers.get("x-amz-content-sha256", "")
    if hash_of_payload.startswith("STREAMING-"):
        return _fill_from_chunks(store, writer, request, hash_of_payload)
    for data in _pieces(request, MAX_OBJECT_BYTES):
        store.write(writer, data)
    return {}


def _fill_from_chunks(store: Store, writer: Writer, request: S3Request, kind: str) -> dict[str, str]:
    decoder = ChunkedDecoder(_chunk_key(request, kind))
    expected = _length(request.headers, "x-amz-decoded-content-length")
    if expected is None:
        raise S3Error("MissingContentLength", "an aws-chunked body needs x-amz-decoded-content-length")
    if expected > MAX_OBJECT_BYTES:
        raise _too_large(MAX_OBJECT_BYTES)
    for data in _pieces(request, 2 * MAX_OBJECT_BYTES):
        payload = decoder.feed(data)
        if writer.digests.size + len(payload) > expected:
            raise S3Error("IncompleteBody", f"the body has more than the {expected} bytes it announced")
        if payload:
            store.write(writer, payload)
    trailers = decoder.finish()
    if writer.digests.size != expected:
        raise S3Error("IncompleteBody", f"{writer.digests.size} bytes came, {expected} were announced")
    return trailers


def _chunk_key(request: S3Request, kind: str) -> ChunkKey | None:
    if kind == UNSIGNED_TRAILER:
        return None
    if kind == SIGNED_CHUNKS and request.signed:
        return ChunkKey(sigv4.signing_key(request.secret, request.signed), request.signed)
    raise S3Error("NotImplemented", f"x-amz-content-sha256: {kind} is not supported")


def _pieces(request: S3Request, limit: int) -> Iterator[bytes]:
    """The raw body in pieces. Raises `S3Error` where it is longer than `limit` or shorter than announced."""
    expected = _length(request.headers, "content-length")
    is_chunked = "chunked" in request.headers.get("transfer-encoding", "").lower()
    if expected is None and not is_chunked:
        raise S3Error("MissingContentLength", "a body needs a Content-Length")
    if expected is not None and expected > limit:
        raise _too_large(limit)
    received = 0
    while data := _read(request):
        received += len(data)
        if received > limit:
            raise _too_large(limit)
        yield data
    if not is_chunked and received != expected:
        raise S3Error("IncompleteBody", f"{received} bytes came, {expected} were announced")


def _read(request: S3Request) -> bytes:
    try:
        return request.stream.read(READ_BYTES)
    except (OSError, green.wsgi.ChunkReadError) as error:
        raise S3Error("IncompleteBody", f"the connection broke while the body came: {error}") from error


def _length(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise S3Error("InvalidArgument", f"{name} is a number, not {text[:20]!r}")
    return int(text)


def _check(digests: Digests, request: S3Request, trailers: Mapping[str, str]) -> None:
    announced = (request.signed and request.signed.payload_hash) or sigv4.UNSIGNED_PAYLOAD
    if announced != sigv4.UNSIGNED_PAYLOAD and not announced.startswith("STREAMING-"):
        digests.check_payload_hash(announced)
    promised = request.headers.get("x-amz-trailer", "").strip().lower()
    if promised and promised not in trailers:
        raise S3Error("InvalidRequest", f"the trailer {promised} was announced and did not come")
    digests.check_announced({**request.headers, **trailers})


def _too_large(limit: int) -> S3Error:
    return S3Error("EntityTooLarge", f"the body has more than {limit} bytes")
