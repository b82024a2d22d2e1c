"""Operations on objects: put, get, head, copy, delete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import unquote

from nova.objectstore import buckets, checksum, conditions, names, receive
from nova.objectstore.errors import S3Error
from nova.objectstore.records import StoredObject
from nova.objectstore.request import Reply, S3Request, document, http_date
from nova.objectstore.store import Store

MAX_METADATA_BYTES = 2048  # S3: "user-defined metadata is limited to 2 KB"
DEFAULT_TYPE = "binary/octet-stream"

# Headers that are stored with an object and come back with it, as they are spelled in an answer.
_STORED = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)


def put(store: Store, request: S3Request) -> Reply:
    key = request.stored_key
    buckets.of(store, request)
    headers = stored_headers(request.headers)
    received = receive.to_blob(store, request)
    new = StoredObject(
        key=key,
        etag=received.etag,
        size=received.segment.size,
        modified=datetime.now(UTC),
        headers=headers,
        checksums=received.checksums,
        segments=(received.segment,),
    )
    install(store, request, new)
    return Reply(200, {"ETag": f'"{new.etag}"', "Content-Length": "0", **checksum_headers(new)})


def install(store: Store, request: S3Request, new: StoredObject) -> None:
    """Make `new` the object of its key; its blobs go where that fails."""
    try:
        store.change(store.index.objects.put, request.bucket_name, new, conditions.write_guard(request.headers))
    except BaseException:
        store.drop(new.blobs)
        raise


def get(store: Store, request: S3Request) -> Reply:
    key = request.stored_key
    buckets.of(store, request)
    found = store.ask(store.index.objects.get, request.bucket_name, key)
    reply, (start, length) = _answer(request, found)
    return replace(reply, body=store.read(found.segments, start, length))


def head(store: Store, request: S3Request) -> Reply:
    key = request.stored_key
    buckets.of(store, request)
    return _answer(request, store.ask(store.index.objects.get, request.bucket_name, key))[0]


def delete(store: Store, request: S3Request) -> Reply:
    key = request.stored_key
    buckets.of(store, request)
    store.change(store.index.objects.delete, request.bucket_name, [key])
    return Reply(204)


def copy(store: Store, request: S3Request) -> Reply:
    """PUT with x-amz-copy-source: the bytes get a second name, they are not read."""
    key = request.stored_key
    buckets.of(store, request)
    source = copy_source(store, request)
    is_replaced = request.headers.get("x-amz-metadata-directive", "COPY") == "REPLACE"
    if source.key == key and _source_bucket(request) == request.bucket_name and not is_replaced:
        raise S3Error("InvalidRequest", "a copy onto itself must change something; use x-amz-metadata-directive")
    new = replace(
        source,
        key=key,
        modified=datetime.now(UTC),
        headers=stored_headers(request.headers) if is_replaced else source.headers,
        segments=store.copy(source.segments),
    )
    install(store, request, new)
    return document("CopyObjectResult", {"ETag": f'"{new.etag}"', "LastModified": new.modified})


def copy_source(store: Store, request: S3Request) -> StoredObject:
    """The object that x-amz-copy-source names. Raises `S3Error`."""
    bucket, key = _source_bucket(request), _source(request)[1]
    buckets.owned(store, request, bucket)
    found = store.ask(store.index.objects.get, bucket, names.check_key(key))
    conditions.check_read(request.headers, found.etag, found.modified, prefix="x-amz-copy-source-")
    return found


def stored_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a request's headers is kept with its object. Raises `S3Error` MetadataTooLarge."""
    kept = {name: headers[name.lower()] for name in _STORED if name.lower() in headers}
    kept.setdefault("Content-Type", DEFAULT_TYPE)
    # aws-chunked is how the body travelled, not what it is.
    codings = [coding.strip() for coding in kept.pop("Content-Encoding", "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "aws-chunked")]
    if codings:
        kept["Content-Encoding"] = ", ".join(codings)
    own = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
    if sum(len(name) - len("x-amz-meta-") + len(value) for name, value in own.items()) > MAX_METADATA_BYTES:
        raise S3Error("MetadataTooLarge", f"metadata has at most {MAX_METADATA_BYTES} bytes")
    return {**kept, **own}


def checksum_headers(found: StoredObject) -> dict[str, str]:
    return {checksum.PREFIX + algorithm: value for algorithm, value in found.checksums.items()}


def _answer(request: S3Request, found: StoredObject) -> tuple[Reply, tuple[int, int]]:
    """The answer without its body, and the bytes (start, length) that the body has."""
    conditions.check_read(request.headers, found.etag, found.modified)
    headers = {
        **found.headers,
        **_overrides(request),
        "ETag": f'"{found.etag}"',
        "Last-Modified": http_date(found.modified),
        "Accept-Ranges": "bytes",
    }
    part = conditions.byte_range(request.headers.get("range"), found.size)
    if part is not None:
        start, length = part
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{found.size}"
        headers["Content-Length"] = str(length)
        return Reply(206, headers), part
    if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers.update(checksum_headers(found))
    headers["Content-Length"] = str(found.size)
    return Reply(200, headers), (0, found.size)


def _overrides(request: S3Request) -> dict[str, str]:
    """`response-content-type` and its relatives in the query; always signed, as every request is."""
    wanted = {name: request.query.get(f"response-{name.lower()}") for name in _STORED}
    overrides = {name: value for name, value in wanted.items() if value is not None}
    if any(character < " " or character > "~" for value in overrides.values() for character in value):
        raise S3Error("InvalidArgument", "a response header is printable ASCII")
    return overrides


def _source(request: S3Request) -> tuple[str, str]:
    text = unquote(request.headers["x-amz-copy-source"].partition("?")[0])
    bucket, slash, key = text.removeprefix("/").partition("/")
    if not slash or not key:
        raise S3Error("InvalidArgument", "x-amz-copy-source is BUCKET/KEY, percent-encoded")
    return bucket, key


def _source_bucket(request: S3Request) -> str:
    return _source(request)[0]
