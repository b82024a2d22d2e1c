"""The S3 API as a WSGI application: authenticate, find the operation, send its reply or its error.

One border: whatever an operation raises becomes an answer here, in S3's XML, with a request id that is also in
the log. The operation is chosen by method, by what the path names, and by the one query parameter or header
that makes it a special one; a parameter that asks for something this store does not do is refused, never
ignored.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from nova import auth, context, exception
from nova.objectstore import buckets, objects, uploads, xml
from nova.objectstore.errors import S3Error
from nova.objectstore.request import Reply, S3Request
from nova.objectstore.store import Store
from nova.sigv4 import Reason, SignatureError

log = logging.getLogger(__name__)

Operation = Callable[[Store, S3Request], Reply]

# (what the path names, method, what makes it special) -> operation
OPERATIONS: dict[tuple[str, str, str], Operation] = {
    ("service", "GET", ""): buckets.list_all,
    ("bucket", "PUT", ""): buckets.create,
    ("bucket", "HEAD", ""): buckets.head,
    ("bucket", "DELETE", ""): buckets.delete,
    ("bucket", "GET", ""): buckets.list_objects,
    ("bucket", "GET", "list-type"): buckets.list_objects_v2,
    ("bucket", "GET", "location"): buckets.location,
    ("bucket", "GET", "versioning"): buckets.versioning,
    ("bucket", "GET", "uploads"): uploads.list_uploads,
    ("bucket", "POST", "delete"): buckets.delete_objects,
    ("object", "PUT", ""): objects.put,
    ("object", "PUT", "x-amz-copy-source"): objects.copy,
    ("object", "GET", ""): objects.get,
    ("object", "HEAD", ""): objects.head,
    ("object", "DELETE", ""): objects.delete,
    ("object", "POST", "uploads"): uploads.create,
    ("object", "PUT", "uploadId"): uploads.put_part,
    ("object", "PUT", "uploadId x-amz-copy-source"): uploads.copy_part,
    ("object", "GET", "uploadId"): uploads.list_parts,
    ("object", "POST", "uploadId"): uploads.complete,
    ("object", "DELETE", "uploadId"): uploads.abort,
}

_SPECIAL = ("list-type", "location", "versioning", "uploads", "delete", "uploadId")
# Sub-resources of S3 that are not here; to answer them with a listing or an object would be a lie.
_ABSENT = {
    "accelerate", "acl", "analytics", "attributes", "cors", "encryption", "intelligent-tiering", "inventory",
    "legal-hold", "lifecycle", "logging", "metrics", "notification", "object-lock", "ownershipControls", "policy",
    "policyStatus", "publicAccessBlock", "replication", "requestPayment", "restore", "retention", "select",
    "session", "tagging", "torrent", "versionId", "versions", "website",
}  # fmt: skip

# The same for headers: who asks for encryption or another owner's rights must not believe to have got them.
_ABSENT_HEADERS = (
    "x-amz-grant-",
    "x-amz-server-side-encryption",
    "x-amz-tagging",
    "x-amz-object-lock-",
    "x-amz-website-redirect-location",
    "x-amz-bucket-object-lock-enabled",
)
# Headers that ask for what is the case anyway.
_ONLY = {"x-amz-acl": ("private", "bucket-owner-full-control"), "x-amz-storage-class": ("STANDARD",)}

_REFUSALS = {
    Reason.MISSING: "AccessDenied",
    Reason.MALFORMED: "AuthorizationHeaderMalformed",
    Reason.UNKNOWN_KEY: "InvalidAccessKeyId",
    Reason.MISMATCH: "SignatureDoesNotMatch",
    Reason.SKEWED: "RequestTimeTooSkewed",
    Reason.EXPIRED: "AccessDenied",
}


class Application:
    """WSGI: `application(environ, start_response)`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request_id = context.new_request_id()
        try:
            reply = self._serve(environ)
        except S3Error as error:
            reply = failure(error, environ, request_id)
        except exception.TemporaryError as error:
            log.warning("%s: %s %s: %s", request_id, environ["REQUEST_METHOD"], environ.get("PATH_INFO"), error)
            reply = failure(S3Error("ServiceUnavailable", str(error)), environ, request_id)
        except Exception as error:
            log.exception("%s: %s %s failed", request_id, environ["REQUEST_METHOD"], environ.get("PATH_INFO"))
            reply = failure(_broken(error, request_id), environ, request_id)
        return _send(reply, environ["REQUEST_METHOD"], request_id, start_response)

    def _serve(self, environ: Mapping[str, Any]) -> Reply:
        request = S3Request.of(environ)
        try:
            identity, signed = auth.authenticate(request.http)
        except SignatureError as error:
            raise S3Error(_REFUSALS[error.reason], str(error)) from None
        if signed.service != "s3":
            raise S3Error("AuthorizationHeaderMalformed", f"the request is signed for {signed.service[:40]!r}")
        request = replace(
            request,
            project_id=identity.project_id,
            is_admin=identity.is_admin,
            signed=signed,
            secret=identity.secret_key,
        )
        return operation_of(request)(self._store, request)


def operation_of(request: S3Request) -> Operation:
    """Raises `S3Error` MethodNotAllowed or NotImplemented."""
    absent = sorted(_ABSENT.intersection(request.query))
    if absent:
        raise S3Error("NotImplemented", f"?{absent[0]} is not part of this store")
    for name, value in request.headers.items():
        if name.startswith(_ABSENT_HEADERS) or value not in _ONLY.get(name, (value,)):
            raise S3Error("NotImplemented", f"{name}: {value[:40]} is not part of this store")
    scope = "service" if request.bucket is None else "bucket" if request.key is None else "object"
    special = [name for name in _SPECIAL if name in request.query]
    if "x-amz-copy-source" in request.headers and request.method == "PUT":
        special.append("x-amz-copy-source")
    found = OPERATIONS.get((scope, request.method, " ".join(special)))
    if found is None:
        raise S3Error("MethodNotAllowed", f"{request.method} does not go with this {scope} and query")
    return found


def _broken(error: Exception, request_id: str) -> S3Error:
    """What a client is told of an error that is ours: a full disk may be emptied, anything else has to be looked at."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return S3Error("ServiceUnavailable", "the disk of the object store is full; nothing was stored")
    return S3Error("InternalError", f"something broke here; the log has it under {request_id}")


def failure(error: S3Error, environ: Mapping[str, Any], request_id: str) -> Reply:
    """An error as S3 answers it."""
    if error.status == HTTPStatus.NOT_MODIFIED:
        return Reply(error.status)
    value = {
        "Code": error.code,
        "Message": str(error),
        "Resource": environ.get("RAW_PATH_INFO", environ.get("PATH_INFO", "")),
        "RequestId": request_id,
    }
    body = xml.document("Error", value, namespace=None)
    return Reply(error.status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, [body])


def _send(reply: Reply, method: str, request_id: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    status = HTTPStatus(reply.status)
    headers = [(name, value) for name, value in reply.headers.items()]
    headers.append(("x-amz-request-id", request_id))
    start_response(f"{status.value} {status.phrase}", headers)
    if method == "HEAD":
        return ()
    return reply.body
