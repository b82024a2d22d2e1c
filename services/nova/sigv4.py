"""AWS Signature Version 4, the server's side: is this request signed by the holder of that access key?

Pure: a request, a secret and the time go in, a `Signed` or a `SignatureError` comes out. It must not know who a
user is or what a service answers; `nova.auth` looks keys up, and each API has its own words for the reasons.
Invariant: signatures are compared in constant time, and an unknown key costs as much as a wrong one.
Source: "Signature Version 4 for API requests" and "Authenticating Requests" (S3 API reference).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from urllib.parse import quote, unquote, unquote_plus

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
MAX_SKEW = timedelta(minutes=15)  # both EC2 and S3 document a quarter of an hour
MAX_EXPIRES_S = 7 * 24 * 3600  # S3: "a presigned URL can be valid for a maximum of seven days"

_CREDENTIAL = re.compile(r"([^/]+)/(\d{8})/([^/]*)/([^/]+)/aws4_request")
_UNRESERVED = "-_.~"


class Reason(Enum):
    """Why a request was refused; every API translates it into its own error code."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown key"
    MISMATCH = "mismatch"
    SKEWED = "skewed"
    EXPIRED = "expired"


class SignatureError(Exception):
    """The request is not proven to come from the holder of its access key."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class HttpRequest:
    """What of a request is signed. `path` and `query` are as they were sent, still percent-encoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case

    def parameters(self) -> list[tuple[str, str]]:
        pairs = (part.partition("=") for part in self.query.split("&") if part)
        return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]


@dataclass(frozen=True)
class Signed:
    """The claims of a signed request: who, when, for what; `verify` proves them."""

    access_key: str
    date: str  # YYYYMMDD of the credential scope
    region: str
    service: str
    timestamp: str  # YYYYMMDD'T'HHMMSS'Z'
    signed_headers: tuple[str, ...]
    signature: str
    payload_hash: str | None  # None: the hash of the body, where no header says it
    expires_s: int | None = None  # presigned URLs only

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def is_signed(request: HttpRequest) -> bool:
    """True where the request carries a signature of this version, in its header or its query."""
    if request.headers.get("authorization", "").startswith(ALGORITHM):
        return True
    return any(name == "X-Amz-Signature" for name, _ in request.parameters())


def parse(request: HttpRequest) -> Signed:
    """Read the claims of a request. Raises `SignatureError` (missing, malformed)."""
    header = request.headers.get("authorization", "")
    if header:
        return _parse_header(request, header)
    parameters = dict(request.parameters())
    if "X-Amz-Signature" in parameters:
        return _parse_presigned(parameters)
    raise SignatureError(Reason.MISSING, "the request is not signed")


def _parse_header(request: HttpRequest, header: str) -> Signed:
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise SignatureError(Reason.MALFORMED, f"only {ALGORITHM} is accepted, not {algorithm[:40]}")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    try:
        return _signed(
            credential=fields["Credential"],
            timestamp=request.headers["x-amz-date"],
            signed_headers=fields["SignedHeaders"],
            signature=fields["Signature"],
            payload_hash=request.headers.get("x-amz-content-sha256"),
        )
    except KeyError as missing:
        raise SignatureError(Reason.MALFORMED, f"the Authorization header lacks {missing}") from None


def _parse_presigned(parameters: dict[str, str]) -> Signed:
    try:
        if parameters["X-Amz-Algorithm"] != ALGORITHM:
            raise SignatureError(Reason.MALFORMED, f"X-Amz-Algorithm must be {ALGORITHM}")
        expires_s = int(parameters["X-Amz-Expires"])
        signed = _signed(
            credential=parameters["X-Amz-Credential"],
            timestamp=parameters["X-Amz-Date"],
            signed_headers=parameters["X-Amz-SignedHeaders"],
            signature=parameters["X-Amz-Signature"],
            payload_hash=parameters.get("X-Amz-Content-Sha256"),
            expires_s=expires_s,
        )
    except KeyError as missing:
        raise SignatureError(Reason.MALFORMED, f"the presigned URL lacks {missing}") from None
    except ValueError:
        raise SignatureError(Reason.MALFORMED, "X-Amz-Expires is not a number") from None
    if not 0 < expires_s <= MAX_EXPIRES_S:
        raise SignatureError(Reason.MALFORMED, f"X-Amz-Expires must be between 1 and {MAX_EXPIRES_S}")
    if signed.service == "s3" and signed.payload_hash is None:
        return replace(signed, payload_hash=UNSIGNED_PAYLOAD)  # who makes the URL does not know the body
    return signed


def _signed(
    *,
    credential: str,
    timestamp: str,
    signed_headers: str,
    signature: str,
    payload_hash: str | None,
    expires_s: int | None = None,
) -> Signed:
    match = _CREDENTIAL.fullmatch(credential)
    if match is None:
        raise SignatureError(Reason.MALFORMED, "Credential must be KEY/YYYYMMDD/REGION/SERVICE/aws4_request")
    access_key, date, region, service = match.groups()
    names = tuple(signed_headers.lower().split(";"))
    return Signed(access_key, date, region, service, timestamp, names, signature, payload_hash, expires_s)


def verify(
    request: HttpRequest,
    secret_of: Callable[[str], str | None],
    now: datetime,
    body: bytes | None = None,
) -> Signed:
    """Prove that `request` was signed with the secret of its access key; `now` is an aware time.

    With a `body`, its hash must be the one that was signed. Without one (it is not read yet) the hash is the one
    in `x-amz-content-sha256`, and the caller compares it with what it reads. Raises `SignatureError`.
    """
    signed = parse(request)
    _check_headers(request, signed)
    secret = secret_of(signed.access_key)
    payload_hash = signed.payload_hash if body is None else hashlib.sha256(body).hexdigest()
    if payload_hash is None:
        raise SignatureError(Reason.MALFORMED, "the header x-amz-content-sha256 is missing")
    expected = sign(request, signed, secret or "", payload_hash)
    is_equal = hmac.compare_digest(expected.encode(), signed.signature.encode())
    is_equal = is_equal and signed.payload_hash in (None, payload_hash)
    if secret is None:
        raise SignatureError(Reason.UNKNOWN_KEY, f"there is no access key {signed.access_key}")
    if not is_equal:
        raise SignatureError(
            Reason.MISMATCH,
            "the signature is not the one that your secret key gives this request; check the key and the method",
        )
    _check_time(signed, now)
    return signed


def _check_headers(request: HttpRequest, signed: Signed) -> None:
    """What is not signed can be changed on the way, so what matters must be signed."""
    if "host" not in signed.signed_headers:
        raise SignatureError(Reason.MALFORMED, "the Host header must be signed")
    for name in request.headers:
        if name.startswith("x-amz-") and name not in signed.signed_headers:
            raise SignatureError(Reason.MALFORMED, f"the header {name} is present but not signed")


def _check_time(signed: Signed, now: datetime) -> None:
    try:
        sent = datetime.strptime(signed.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError(Reason.MALFORMED, "the date must look like 20260131T235959Z") from None
    if not signed.timestamp.startswith(signed.date):
        raise SignatureError(Reason.MALFORMED, "the credential is for another day than the request")
    if signed.expires_s is None:
        if abs(now - sent) > MAX_SKEW:
            raise SignatureError(Reason.SKEWED, f"the request is dated {signed.timestamp}, too far from our time")
    elif now > sent + timedelta(seconds=signed.expires_s):
        raise SignatureError(Reason.EXPIRED, "the presigned URL has expired")
    elif sent > now + MAX_SKEW:
        raise SignatureError(Reason.SKEWED, "the presigned URL is not valid yet")


def sign(request: HttpRequest, signed: Signed, secret: str, payload_hash: str) -> str:
    """The signature, in lower-case hexadecimal, that the holder of `secret` gives this request."""
    canonical = hashlib.sha256(canonical_request(request, signed, payload_hash).encode()).hexdigest()
    text = "\n".join((ALGORITHM, signed.timestamp, signed.scope, canonical))
    return _hmac(signing_key(secret, signed), text).hex()


def signing_key(secret: str, signed: Signed) -> bytes:
    """The key of one day, region and service, derived from the secret."""
    key = _hmac(f"AWS4{secret}".encode(), signed.date)
    for part in (signed.region, signed.service, "aws4_request"):
        key = _hmac(key, part)
    return key


def canonical_request(request: HttpRequest, signed: Signed, payload_hash: str) -> str:
    """The one form that both sides hash, whatever the request went through on the wire."""
    # S3 encodes a path once, every other service encodes the already encoded path again.
    path = unquote(request.path) if signed.service == "s3" else request.path
    headers = "".join(f"{name}:{_squeeze(request.headers.get(name, ''))}\n" for name in signed.signed_headers)
    return "\n".join(
        (
            request.method,
            quote(path or "/", safe="/" + _UNRESERVED),
            _canonical_query(request),
            headers,
            ";".join(signed.signed_headers),
            payload_hash,
        )
    )


def _canonical_query(request: HttpRequest) -> str:
    pairs = [
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in request.parameters()
        if name != "X-Amz-Signature"
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _squeeze(value: str) -> str:
    return " ".join(value.split())


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
