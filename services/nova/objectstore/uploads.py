"""Multipart uploads: create, put parts, list, complete, abort.

Each part is a blob; completing makes the blobs the segments of the object, so it takes the same time for any
size. The ETag is the MD5 of the parts' MD5s with their number, as S3's; a checksum is composed the same way.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

from nova.objectstore import buckets, checksum, conditions, objects, receive, xml
from nova.objectstore.blobs import Segment
from nova.objectstore.errors import S3Error
from nova.objectstore.receive import Received
from nova.objectstore.records import Part, StoredObject, Upload
from nova.objectstore.request import Reply, S3Request, document
from nova.objectstore.store import Store

MAX_PARTS = 10000
MIN_PART_BYTES = 5 * 1024**2  # S3: every part but the last
_PAGE = 1000


def create(store: Store, request: S3Request) -> Reply:
    key = request.stored_key
    buckets.of(store, request)
    receive.to_memory(request)
    if request.headers.get("x-amz-checksum-type", "COMPOSITE").upper() != "COMPOSITE":
        raise S3Error("InvalidRequest", "only x-amz-checksum-type COMPOSITE is supported")
    algorithm = request.headers.get("x-amz-checksum-algorithm", "").lower() or None
    if algorithm is not None and algorithm not in checksum.SUPPORTED:
        raise S3Error(
            "InvalidRequest", f"checksum {algorithm} is not supported; use {', '.join(checksum.SUPPORTED)}"
        )
    upload = Upload(
        id=uuid.uuid4().hex,
        bucket=request.bucket_name,
        key=key,
        started=datetime.now(UTC),
        headers=objects.stored_headers(request.headers),
        algorithm=algorithm,
    )
    store.ask(store.index.uploads.create, upload)
    headers = (
        {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": "COMPOSITE"} if algorithm else {}
    )
    names = {"Bucket": upload.bucket, "Key": request.key_name, "UploadId": upload.id}
    return document("InitiateMultipartUploadResult", names, headers)


def put_part(store: Store, request: S3Request) -> Reply:
    upload = _upload(store, request)
    number = _part_number(request)
    received = receive.to_blob(store, request, upload.algorithm)
    part = _store_part(store, upload, number, received)
    return Reply(200, {"ETag": f'"{part.etag}"', "Content-Length": "0", **_checksum_header(received)})


def copy_part(store: Store, request: S3Request) -> Reply:
    """A part that is a range of another object."""
    upload = _upload(store, request)
    number = _part_number(request)
    source = objects.copy_source(store, request)
    wanted = request.headers.get("x-amz-copy-source-range")
    start, length = conditions.byte_range(wanted, source.size) or (0, source.size)
    received = _copy(store, source, start, length, upload.algorithm)
    part = _store_part(store, upload, number, received)
    return document("CopyPartResult", {"ETag": f'"{part.etag}"', "LastModified": part.modified})


def list_parts(store: Store, request: S3Request) -> Reply:
    upload = _upload(store, request)
    limit = request.number("max-parts", _PAGE, 1, _PAGE)
    marker = request.number("part-number-marker", 0, 0, MAX_PARTS)
    parts = store.ask(store.index.uploads.parts, upload.id, marker, limit + 1)
    is_truncated = len(parts) > limit
    shown = parts[:limit]
    return document(
        "ListPartsResult",
        {
            "Bucket": upload.bucket,
            "Key": request.key_name,
            "UploadId": upload.id,
            "PartNumberMarker": marker,
            "NextPartNumberMarker": shown[-1].number if shown else marker,
            "MaxParts": limit,
            "IsTruncated": is_truncated,
            "StorageClass": "STANDARD",
            "Part": [
                {
                    "PartNumber": part.number,
                    "LastModified": part.modified,
                    "ETag": f'"{part.etag}"',
                    "Size": part.size,
                }
                for part in shown
            ],
        },
    )


def list_uploads(store: Store, request: S3Request) -> Reply:
    buckets.of(store, request)
    limit = request.number("max-uploads", _PAGE, 1, _PAGE)
    prefix = request.query.get("prefix", "").encode(errors="replace")
    key_marker = request.query.get("key-marker", "").encode(errors="replace")
    # Without an id marker a page begins after all uploads of the key; "~" sorts behind every id.
    id_marker = request.query.get("upload-id-marker", "~" if key_marker else "")
    found = store.ask(store.index.uploads.all, request.bucket_name, prefix, (key_marker, id_marker), limit + 1)
    shown = found[:limit]
    is_truncated = len(found) > limit
    return document(
        "ListMultipartUploadsResult",
        {
            "Bucket": request.bucket_name,
            "Prefix": prefix.decode(errors="replace"),
            "KeyMarker": key_marker.decode(errors="replace"),
            "MaxUploads": limit,
            "IsTruncated": is_truncated,
            "NextKeyMarker": shown[-1].key.decode() if is_truncated else None,
            "NextUploadIdMarker": shown[-1].id if is_truncated else None,
            "Upload": [
                {"Key": item.key.decode(), "UploadId": item.id, "Initiated": item.started} for item in shown
            ],
        },
    )


def complete(store: Store, request: S3Request) -> Reply:
    upload = _upload(store, request)
    wanted = xml.parse(receive.to_memory(request), "CompleteMultipartUpload").findall("Part")

    def build(parts: list[Part]) -> StoredObject:
        return compose(upload, choose(wanted, parts), datetime.now(UTC))

    guard = conditions.write_guard(request.headers)
    new, unused = store.ask(store.index.uploads.complete, upload, build, guard)
    store.drop(unused)
    result: dict[str, Any] = {
        "Location": f"/{upload.bucket}/{request.key_name}",
        "Bucket": upload.bucket,
        "Key": request.key_name,
        "ETag": f'"{new.etag}"',
    }
    for algorithm, value in new.checksums.items():
        result.update({f"Checksum{algorithm.upper()}": value, "ChecksumType": "COMPOSITE"})
    return document("CompleteMultipartUploadResult", result)


def abort(store: Store, request: S3Request) -> Reply:
    store.change(store.index.uploads.abort, _upload(store, request))
    return Reply(204)


def choose(wanted: list[Element], parts: list[Part]) -> list[Part]:
    """The parts that a CompleteMultipartUpload names. Raises `S3Error` InvalidPart, InvalidPartOrder. Pure."""
    if not wanted:
        raise S3Error("MalformedXML", "a completion names at least one part")
    by_number = {part.number: part for part in parts}
    chosen = []
    for element in wanted:
        number = element.findtext("PartNumber", "")
        part = by_number.get(int(number)) if number.isdecimal() and len(number) <= 5 else None
        if part is None or part.etag != element.findtext("ETag", "").strip('"'):
            raise S3Error("InvalidPart", f"part {number[:10]!r} was not uploaded, or has another ETag")
        announced = element.findtext(f"Checksum{part_algorithm(element)}")
        if announced and part.checksum and announced != part.checksum:
            raise S3Error("InvalidPart", f"part {number} has another checksum")
        chosen.append(part)
    if any(second.number <= first.number for first, second in pairwise(chosen)):
        raise S3Error("InvalidPartOrder", "parts are listed in ascending order")
    small = [part.number for part in chosen[:-1] if part.size < MIN_PART_BYTES]
    if small:
        raise S3Error(
            "EntityTooSmall", f"part {small[0]} has fewer than {MIN_PART_BYTES} bytes and is not the last"
        )
    return chosen


def part_algorithm(element: Element) -> str:
    """The algorithm whose checksum a Part element carries, in upper case; empty where it carries none."""
    names = [child.tag.removeprefix("Checksum") for child in element if child.tag.startswith("Checksum")]
    return names[0] if names else ""


def compose(upload: Upload, parts: list[Part], now: datetime) -> StoredObject:
    """The object that the parts in a row make. Pure."""
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return StoredObject(
        key=upload.key,
        etag=f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}",
        size=sum(part.size for part in parts),
        modified=now,
        headers=upload.headers,
        checksums=_composed_checksum(upload.algorithm, parts),
        segments=tuple(Segment(part.blob, part.size) for part in parts),
    )


def _composed_checksum(algorithm: str | None, parts: list[Part]) -> dict[str, str]:
    if algorithm is None or any(part.checksum is None for part in parts):
        return {}
    whole = checksum.new(algorithm)
    for part in parts:
        whole.update(base64.b64decode(part.checksum or ""))
    return {algorithm: f"{base64.b64encode(whole.digest()).decode()}-{len(parts)}"}


def _upload(store: Store, request: S3Request) -> Upload:
    key = request.stored_key
    buckets.of(store, request)
    return store.ask(store.index.uploads.get, request.bucket_name, key, request.query["uploadId"])


def _part_number(request: S3Request) -> int:
    number = request.number("partNumber", 0, 1, MAX_PARTS + 1)
    if not 1 <= number <= MAX_PARTS:
        raise S3Error("InvalidArgument", f"partNumber is a number from 1 to {MAX_PARTS}")
    return number


def _store_part(store: Store, upload: Upload, number: int, received: Received) -> Part:
    part = Part(
        number, received.etag, received.segment.size, datetime.now(UTC), received.segment.blob, received.checksum
    )
    try:
        store.change(store.index.uploads.put_part, upload, part)
    except BaseException:
        store.drop([part.blob])
        raise
    return part


def _copy(store: Store, source: StoredObject, start: int, length: int, algorithm: str | None) -> Received:
    reading = store.read(source.segments, start, length)
    digests = checksum.Digests(algorithm)
    try:
        writer = store.new_blob(digests)
        try:
            for data in reading:
                store.write(writer, data)
            segment = store.commit(writer)
        except BaseException:
            store.discard(writer)
            raise
    finally:
        reading.close()
    return Received(segment, digests.etag, algorithm, digests.checksum)


def _checksum_header(received: Received) -> dict[str, str]:
    return {checksum.PREFIX + name: value for name, value in received.checksums.items()}
