"""Signature Version 4: what botocore signs is accepted, and whatever was changed afterwards is not."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from nova import sigv4
from nova.sigv4 import HttpRequest, Reason, SignatureError

KEYS = {"AKID": "the-secret"}


def now() -> datetime:
    return datetime.now(UTC)


def signed_by_botocore(
    signer, method="GET", url="http://127.0.0.1:3333/bucket/key", data=b"", headers=None
) -> HttpRequest:
    request = AWSRequest(method=method, url=url, data=data, headers=headers or {})
    signer.add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    sent = {name.lower(): value for name, value in prepared.headers.items()}
    sent = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()}
    sent["host"] = parts.netloc
    return HttpRequest(method, parts.path, parts.query, sent)


def s3(**kwargs) -> HttpRequest:
    return signed_by_botocore(S3SigV4Auth(Credentials("AKID", "the-secret"), "s3", "nova"), **kwargs)


def ec2(body: bytes = b"Action=DescribeRegions") -> HttpRequest:
    signer = SigV4Auth(Credentials("AKID", "the-secret"), "ec2", "nova")
    return signed_by_botocore(signer, "POST", "http://127.0.0.1:8773/services/Cloud", body)


def presigned(expires_s: int = 60) -> HttpRequest:
    signer = S3SigV4QueryAuth(Credentials("AKID", "the-secret"), "s3", "nova", expires=expires_s)
    return signed_by_botocore(signer)


def refusal(request: HttpRequest, **kwargs) -> Reason:
    with pytest.raises(SignatureError) as caught:
        sigv4.verify(request, KEYS.get, kwargs.pop("at", now()), **kwargs)
    return caught.value.reason


def test_a_header_signature_of_botocore_is_accepted() -> None:
    signed = sigv4.verify(s3(), KEYS.get, now())
    assert (signed.access_key, signed.service, signed.region) == ("AKID", "s3", "nova")


def test_a_body_without_a_hash_header_is_hashed_itself() -> None:
    body = b"Action=DescribeRegions"
    assert sigv4.verify(ec2(body), KEYS.get, now(), body).service == "ec2"
    assert refusal(ec2(body), body=b"Action=TerminateInstances") is Reason.MISMATCH


def test_a_hash_in_a_header_does_not_stand_for_another_body() -> None:
    """Else whoever sees a signed request could send another body under it."""
    body = b"Action=DescribeRegions"
    signer = S3SigV4Auth(Credentials("AKID", "the-secret"), "ec2", "nova")  # the one that sends the header
    request = signed_by_botocore(signer, "POST", "http://127.0.0.1:8773/", body)
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    assert sigv4.verify(request, KEYS.get, now(), body)
    assert refusal(request, body=b"Action=TerminateInstances") is Reason.MISMATCH


def test_a_request_that_promises_no_hash_needs_its_body() -> None:
    headers = {name: value for name, value in s3().headers.items() if name != "x-amz-content-sha256"}
    assert refusal(dataclasses.replace(s3(), headers=headers)) is Reason.MALFORMED


def test_a_presigned_url_of_another_service_covers_its_body() -> None:
    signer = SigV4QueryAuth(Credentials("AKID", "the-secret"), "ec2", "nova", expires=60)
    request = signed_by_botocore(signer, url="http://127.0.0.1:8773/?Action=DescribeRegions")
    assert sigv4.verify(request, KEYS.get, now(), b"")
    assert refusal(request, body=b"Action=TerminateInstances") is Reason.MISMATCH


def test_a_presigned_url_of_botocore_is_accepted_until_it_expires() -> None:
    request = presigned(60)
    assert sigv4.verify(request, KEYS.get, now()).expires_s == 60
    assert refusal(request, at=now() + timedelta(seconds=62)) is Reason.EXPIRED


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_any_key_and_query_value_survive_the_encoding(text: str) -> None:
    from urllib.parse import quote

    url = f"http://127.0.0.1:3333/bucket/k{quote(text, safe='/~')}?prefix={quote(text, safe='~')}&marker="
    assert sigv4.verify(s3(url=url), KEYS.get, now()).service == "s3"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"path": "/bucket/other"},
        {"query": "acl="},
        {"headers": {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}},
        {"headers": {"host": "elsewhere:3333"}},
    ],
    ids=["method", "path", "query", "payload", "host"],
)
def test_a_request_changed_after_signing_is_refused(change: dict) -> None:
    request = s3()
    if "headers" in change:
        change = {"headers": {**request.headers, **change["headers"]}}
    assert refusal(dataclasses.replace(request, **change)) is Reason.MISMATCH


def test_a_wrong_secret_and_an_unknown_key_are_told_apart_by_reason_only() -> None:
    with pytest.raises(SignatureError) as caught:
        sigv4.verify(s3(), {"AKID": "wrong"}.get, now())
    assert caught.value.reason is Reason.MISMATCH
    with pytest.raises(SignatureError) as caught:
        sigv4.verify(s3(), {}.get, now())
    assert caught.value.reason is Reason.UNKNOWN_KEY


def test_the_empty_secret_opens_nothing() -> None:
    signer = S3SigV4Auth(Credentials("nobody", ""), "s3", "nova")
    assert refusal(signed_by_botocore(signer)) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_off_by_more_than_a_quarter_of_an_hour_is_refused(minutes: int) -> None:
    assert refusal(s3(), at=now() + timedelta(minutes=minutes)) is Reason.SKEWED


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_clock_off_by_less_is_accepted(minutes: int) -> None:
    assert sigv4.verify(s3(), KEYS.get, now() + timedelta(minutes=minutes))


def test_an_unsigned_amz_header_is_refused() -> None:
    request = s3()
    smuggled = dataclasses.replace(request, headers={**request.headers, "x-amz-acl": "public-read"})
    assert refusal(smuggled) is Reason.MALFORMED


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS AKID:c2lnbmF0dXJl",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/r/s3/aws4_request, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/r/s3/aws4_request, SignedHeaders=x-amz-date, Signature=00",
    ],
)
def test_a_malformed_authorization_is_named_as_such(authorization: str) -> None:
    headers = {"authorization": authorization, "x-amz-date": "20260101T000000Z", "host": "h"}
    assert refusal(HttpRequest("GET", "/", "", headers)) is Reason.MALFORMED


def test_a_request_without_any_signature_is_missing_one() -> None:
    assert refusal(HttpRequest("GET", "/", "", {"host": "h"})) is Reason.MISSING


@pytest.mark.parametrize("expires", ["0", "604801", "soon"])
def test_a_presigned_url_lives_between_a_second_and_a_week(expires: str) -> None:
    request = presigned()
    changed = dataclasses.replace(
        request, query=request.query.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}")
    )
    assert refusal(changed) is Reason.MALFORMED
