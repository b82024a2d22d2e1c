"""The EC2 Query API as a WSGI application, at `/` and at Nova's `/services/Cloud`.

One border: authenticate, find the action, run it, and send its reply or its error as XML. The request id is in the
answer, in the log, and in every call that the action makes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from nova import auth, context, exception, rpc, xmlwriter
from nova.api import query
from nova.api.actions import ACTIONS
from nova.api.call import Call
from nova.api.errors import Ec2Error, missing
from nova.context import RequestContext
from nova.httprequest import http_request
from nova.sigv4 import HttpRequest, Reason, SignatureError

log = logging.getLogger(__name__)

PATHS = ("", "/", "/services/Cloud", "/services/Cloud/")
DEFAULT_VERSION = "2016-11-15"  # the one whose shapes we answer in
MAX_BODY_BYTES = 1024 * 1024

_REFUSALS = {
    Reason.MISSING: "AuthFailure",
    Reason.MALFORMED: "AuthFailure",
    Reason.UNKNOWN_KEY: "AuthFailure",
    Reason.MISMATCH: "SignatureDoesNotMatch",
    Reason.SKEWED: "RequestExpired",
    Reason.EXPIRED: "RequestExpired",
}


class Application:
    """WSGI: `application(environ, start_response)`. `client` makes the way to the other services."""

    def __init__(self, client: Callable[..., Any] = rpc.Client) -> None:
        self._client = client

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request_id = context.new_request_id()
        try:
            body = self._serve(environ, request_id)
            status = 200
        except Ec2Error as error:
            body, status = _failure(error, request_id), error.status
        line = HTTPStatus(status)
        headers = [("Content-Type", "text/xml;charset=UTF-8"), ("Content-Length", str(len(body)))]
        start_response(f"{status} {line.phrase}", [*headers, ("x-amzn-requestid", request_id)])
        return [body]

    def _serve(self, environ: Mapping[str, Any], request_id: str) -> bytes:
        """The answer in XML. Raises `Ec2Error` for whatever goes wrong."""
        request = http_request(environ)
        if request.path not in PATHS:
            raise Ec2Error("InvalidAction", f"the EC2 API is at /services/Cloud, not at {request.path[:80]}")
        payload = _read(environ)
        params = query.parse(request.query, payload)
        name = params.text("Action") or ""
        try:
            call = Call(_authenticated(request, payload, request_id), params, self._client)
            with context.use(call.context):
                reply = _run(name, call)
        except exception.TemporaryError as error:
            log.warning("%s: %s", name, error)
            raise Ec2Error("ServiceUnavailable", str(error)) from error
        except (rpc.NoSuchTopic, rpc.RPCTimeout, rpc.LinkClosed) as error:
            log.warning("%s: %s", name, error)
            raise Ec2Error("ServiceUnavailable", f"a service that this needs is away: {error}") from error
        except Ec2Error:
            raise
        except Exception as error:
            log.exception("%s failed (request %s)", name, request_id)
            raise Ec2Error("InternalError", f"something broke here; the log has it under {request_id}") from error
        version = params.text("Version", DEFAULT_VERSION, max_length=10)
        namespace = f"http://ec2.amazonaws.com/doc/{xmlwriter.text(version)}/"
        return xmlwriter.document(f"{name}Response", {"requestId": request_id, **reply}, namespace)


def _run(name: str, call: Call) -> Mapping[str, Any]:
    if not name:
        raise missing("Action")
    action = ACTIONS.get(name)
    if action is None:
        raise Ec2Error("InvalidAction", f"the action {name[:80]!r} is not part of this API")
    if call.params.flag("DryRun"):
        raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    return action(call)


def _authenticated(request: HttpRequest, payload: bytes, request_id: str) -> RequestContext:
    try:
        identity, signed = auth.authenticate(request, payload)
    except SignatureError as error:
        raise Ec2Error(_REFUSALS[error.reason], str(error)) from None
    if signed.service != "ec2":
        raise Ec2Error("AuthFailure", f"the request is signed for {signed.service[:40]!r}, this is ec2")
    return RequestContext(
        user_id=identity.user_id,
        project_id=identity.project_id,
        is_admin=identity.is_admin,
        request_id=request_id,
    )


def _read(environ: Mapping[str, Any]) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY_BYTES:
        raise Ec2Error("RequestEntityTooLarge", f"a request has at most {MAX_BODY_BYTES} bytes")
    if environ["REQUEST_METHOD"] not in ("GET", "POST"):
        raise Ec2Error("InvalidAction", "requests are GET or POST")
    payload: bytes = environ["wsgi.input"].read(length) if length else b""
    if len(payload) != length:
        raise Ec2Error("MalformedQueryString", f"{len(payload)} bytes came, {length} were announced")
    return payload


def _failure(error: Ec2Error, request_id: str) -> bytes:
    value = {"Errors": {"Error": {"Code": error.code, "Message": str(error)}}, "RequestID": request_id}
    return xmlwriter.document("Response", value)
