"""Operations on buckets: create, head, delete, list them and what is in them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from nova.objectstore import listing, names, receive, xml
from nova.objectstore.errors import S3Error
from nova.objectstore.records import Bucket, StoredObject
from nova.objectstore.request import Reply, S3Request, document
from nova.objectstore.store import Store

MAX_KEYS = 1000
MAX_DELETES = 1000


def of(store: Store, request: S3Request) -> Bucket:
    """The bucket of the request. Raises `S3Error` NoSuchBucket, AccessDenied."""
    return owned(store, request, request.bucket_name)


def owned(store: Store, request: S3Request, name: str) -> Bucket:
    bucket = store.ask(store.index.buckets.get, name)
    if bucket.owner != request.project_id and not request.is_admin:
        raise S3Error("AccessDenied", f"the bucket {name} belongs to another project")
    return bucket


def list_all(store: Store, request: S3Request) -> Reply:
    found = store.ask(store.index.buckets.all, None if request.is_admin else request.project_id)
    return document(
        "ListAllMyBucketsResult",
        {
            "Owner": _owner(request.project_id),
            "Buckets": {"Bucket": [{"Name": item.name, "CreationDate": item.created} for item in found]},
        },
    )


def create(store: Store, request: S3Request) -> Reply:
    names.check_bucket(request.bucket_name)
    receive.to_memory(request)  # a LocationConstraint: there is one location
    if not store.ask(store.index.buckets.create, request.bucket_name, request.project_id, datetime.now(UTC)):
        bucket = store.ask(store.index.buckets.get, request.bucket_name)
        if bucket.owner == request.project_id:
            raise S3Error("BucketAlreadyOwnedByYou", f"you have a bucket {bucket.name} already")
        raise S3Error("BucketAlreadyExists", f"another project has a bucket {bucket.name}")
    return Reply(200, {"Location": f"/{request.bucket_name}", "Content-Length": "0"})


def head(store: Store, request: S3Request) -> Reply:
    of(store, request)
    return Reply(200, {"Content-Length": "0"})


def delete(store: Store, request: S3Request) -> Reply:
    of(store, request)
    store.change(store.index.buckets.delete, request.bucket_name)
    return Reply(204)


def location(store: Store, request: S3Request) -> Reply:
    of(store, request)
    return document("LocationConstraint", {})


def versioning(store: Store, request: S3Request) -> Reply:
    """There are no versions, which is what an empty answer says."""
    of(store, request)
    return document("VersioningConfiguration", {})


def list_objects(store: Store, request: S3Request) -> Reply:
    """ListObjects, the first version: pages by marker."""
    of(store, request)
    marker = request.query.get("marker", "")
    limit = request.number("max-keys", MAX_KEYS, 0, MAX_KEYS)
    page = _page(store, request, marker.encode(errors="replace"), limit)
    show = _encoder(request)
    has_groups = bool(request.query.get("delimiter"))
    return document(
        "ListBucketResult",
        {
            **_heading(request, page, limit),
            "Marker": show(marker.encode(errors="replace")),
            "NextMarker": show(page.last) if page.is_truncated and has_groups else None,
            "Contents": [_contents(item, show, _owner(request.project_id)) for item in page.entries],
            "CommonPrefixes": [{"Prefix": show(group)} for group in page.prefixes],
        },
    )


def list_objects_v2(store: Store, request: S3Request) -> Reply:
    """ListObjectsV2: pages by an opaque token."""
    of(store, request)
    token = request.query.get("continuation-token")
    start_after = request.query.get("start-after", "")
    limit = request.number("max-keys", MAX_KEYS, 0, MAX_KEYS)
    marker = _marker(token) if token is not None else start_after.encode(errors="replace")
    page = _page(store, request, marker, limit)
    show = _encoder(request)
    owner = _owner(request.project_id) if request.query.get("fetch-owner") == "true" else None
    return document(
        "ListBucketResult",
        {
            **_heading(request, page, limit),
            "KeyCount": len(page.entries) + len(page.prefixes),
            "StartAfter": show(start_after.encode(errors="replace")) if start_after else None,
            "ContinuationToken": token,
            "NextContinuationToken": _token(page.last) if page.is_truncated else None,
            "Contents": [_contents(item, show, owner) for item in page.entries],
            "CommonPrefixes": [{"Prefix": show(group)} for group in page.prefixes],
        },
    )


def delete_objects(store: Store, request: S3Request) -> Reply:
    """POST ?delete: up to a thousand keys at once; a key that is absent counts as deleted."""
    of(store, request)
    tree = xml.parse(receive.to_memory(request), "Delete")
    keys = [item.findtext("Key") or "" for item in tree.findall("Object")]
    if not 0 < len(keys) <= MAX_DELETES:
        raise S3Error("MalformedXML", f"between 1 and {MAX_DELETES} objects a request, not {len(keys)}")
    store.change(store.index.objects.delete, request.bucket_name, [names.check_key(key) for key in keys])
    is_quiet = tree.findtext("Quiet") == "true"
    return document("DeleteResult", {"Deleted": [] if is_quiet else [{"Key": key} for key in keys]})


def _page(store: Store, request: S3Request, marker: bytes, limit: int) -> listing.Page[StoredObject]:
    def fetch(start: bytes, count: int) -> list[StoredObject]:
        return store.ask(store.index.objects.range, request.bucket_name, start, count)

    return listing.page(
        fetch,
        prefix=request.query.get("prefix", "").encode(errors="replace"),
        delimiter=request.query.get("delimiter", "").encode(errors="replace"),
        marker=marker,
        limit=limit,
    )


def _heading(request: S3Request, page: listing.Page[StoredObject], limit: int) -> dict[str, Any]:
    show = _encoder(request)
    return {
        "Name": request.bucket_name,
        "Prefix": show(request.query.get("prefix", "").encode(errors="replace")),
        "Delimiter": show(request.query["delimiter"].encode(errors="replace"))
        if request.query.get("delimiter")
        else None,
        "MaxKeys": limit,
        "EncodingType": request.query.get("encoding-type"),
        "IsTruncated": page.is_truncated,
    }


def _contents(
    item: StoredObject, show: Callable[[bytes], str], owner: Mapping[str, str] | None
) -> dict[str, Any]:
    return {
        "Key": show(item.key),
        "LastModified": item.modified,
        "ETag": f'"{item.etag}"',
        "Size": item.size,
        "StorageClass": "STANDARD",
        "Owner": owner,
    }


def _encoder(request: S3Request) -> Callable[[bytes], str]:
    """How keys are shown: as they are, or percent-encoded, which also holds what XML cannot."""
    kind = request.query.get("encoding-type")
    if kind not in (None, "url"):
        raise S3Error("InvalidArgument", f"encoding-type is url, not {kind[:20]!r}")
    if kind == "url":
        return lambda key: quote(key, safe="/")
    return lambda key: key.decode(errors="replace")


def _owner(project_id: str) -> dict[str, str]:
    return {"ID": project_id, "DisplayName": project_id}


def _token(last: bytes) -> str:
    return base64.urlsafe_b64encode(last).decode()


def _marker(token: str) -> bytes:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise S3Error("InvalidArgument", "the continuation token is not one of ours") from None
