"""A request and an answer of the S3 API, as values that know nothing of WSGI's dictionaries.

`S3Request.of` reads an environ; `Reply` is what an operation returns and `application` sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any, BinaryIO
from urllib.parse import unquote

from nova.httprequest import http_request
from nova.objectstore import names, xml
from nova.objectstore.errors import S3Error
from nova.sigv4 import HttpRequest, Signed


@dataclass(frozen=True)
class S3Request:
    """One request; `bucket` and `key` are None where the path does not name them."""

    http: HttpRequest
    bucket: str | None
    key: str | None
    query: Mapping[str, str]
    stream: BinaryIO
    project_id: str = ""
    is_admin: bool = False
    signed: Signed | None = None
    secret: str = field(default="", repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> S3Request:
        """Raises `S3Error` for a path that is not UTF-8."""
        http = http_request(environ)
        bucket, _slash, key = http.path.lstrip("/").partition("/")
        try:
            named = [unquote(part, errors="strict") for part in (bucket, key)]
        except UnicodeDecodeError:
            raise S3Error("InvalidArgument", "the path is not UTF-8") from None
        return cls(
            http=http,
            bucket=named[0] or None,
            key=named[1] or None,
            query=dict(http.parameters()),
            stream=environ["wsgi.input"],
        )

    @property
    def method(self) -> str:
        return self.http.method

    @property
    def headers(self) -> Mapping[str, str]:
        return self.http.headers

    @property
    def bucket_name(self) -> str:
        assert self.bucket is not None
        return self.bucket

    @property
    def key_name(self) -> str:
        assert self.key is not None
        return self.key

    @property
    def stored_key(self) -> bytes:
        return names.check_key(self.key_name)

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A number of the query, cut to `highest`. Raises `S3Error` InvalidArgument."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise S3Error("InvalidArgument", f"{name} is a number from {lowest}, not {text[:20]!r}")
        return min(value, highest)


@dataclass(frozen=True)
class Reply:
    """`body` is sent as it is; an iterable with `close` is closed in any case."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()


def document(name: str, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    """An answer in XML."""
    body = xml.document(name, value)
    all_headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **(headers or {})}
    return Reply(200, all_headers, [body])


def http_date(value: datetime) -> str:
    return format_datetime(value, usegmt=True)
