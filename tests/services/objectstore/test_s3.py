"""The S3 API as unmodified boto3 uses it, and as it does not: by hand-made requests."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from nova.db import session, users
from nova.objectstore.checksum import Digests
from nova.objectstore.store import Store

pytestmark = pytest.mark.native

MIB = 1024 * 1024


@pytest.fixture
def bucket(s3) -> str:
    from nova import green

    green.tpool.execute(s3.create_bucket, Bucket="first")
    return "first"


def code(call, *args, **kwargs) -> str:
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response["Error"]["Code"]


def status(call, *args, **kwargs) -> int:
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def body(answer: dict) -> bytes:
    return answer["Body"].read()


def blobs(store: Store) -> list[Path]:
    return [
        path for folder in ("data", "incoming") for path in (store.root / folder).rglob("*") if path.is_file()
    ]


def test_buckets_are_created_listed_and_deleted(s3) -> None:
    s3.create_bucket(Bucket="one")
    s3.create_bucket(Bucket="two", CreateBucketConfiguration={"LocationConstraint": "nova"})
    assert [item["Name"] for item in s3.list_buckets()["Buckets"]] == ["one", "two"]
    s3.head_bucket(Bucket="one")
    assert s3.get_bucket_location(Bucket="one")["LocationConstraint"] is None
    s3.delete_bucket(Bucket="one")
    assert status(s3.head_bucket, Bucket="one") == 404
    assert code(s3.delete_bucket, Bucket="one") == "NoSuchBucket"
    assert code(s3.create_bucket, Bucket="two") == "BucketAlreadyOwnedByYou"


def test_ten_megabytes_come_back_as_they_went(s3, bucket: str) -> None:
    data = os.urandom(10 * MIB)
    answer = s3.put_object(Bucket=bucket, Key="large", Body=data)
    assert answer["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert answer["ChecksumCRC32"]
    found = s3.get_object(Bucket=bucket, Key="large")
    assert found["ContentLength"] == len(data)
    assert body(found) == data


def test_metadata_and_headers_come_back(s3, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        ContentType="text/plain",
        CacheControl="no-cache",
        Metadata={"colour": "red"},
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["CacheControl"], head["Metadata"]) == (
        "text/plain",
        "no-cache",
        {"colour": "red"},
    )
    assert head["ContentLength"] == 1
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"", Metadata={"a": "b" * 3000}) == "MetadataTooLarge"


def test_an_empty_object_is_an_object(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="empty")
    assert body(s3.get_object(Bucket=bucket, Key="empty")) == b""


@pytest.mark.parametrize(
    "key", ["a b/c+d é%41~", "../../etc/passwd", "/lead", "a//b", "ü\U0001f600", "k" * 1024, "."]
)
def test_a_key_is_any_text_and_never_a_path(s3, bucket: str, store: Store, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"here")
    assert body(s3.get_object(Bucket=bucket, Key=key)) == b"here"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert len(blobs(store)) == 1


def test_a_range_is_that_part(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")

    def part(value: str) -> bytes:
        return body(s3.get_object(Bucket=bucket, Key="k", Range=value))

    assert (part("bytes=2-4"), part("bytes=7-"), part("bytes=-3")) == (b"234", b"789", b"789")
    assert part("bytes=5-100") == b"56789"
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=2-4")["ContentRange"] == "bytes 2-4/10"
    assert code(s3.get_object, Bucket=bucket, Key="k", Range="bytes=10-") == "InvalidRange"


def test_conditions_hold_or_are_refused(s3, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*")["ETag"]
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"y", IfNoneMatch="*") == "PreconditionFailed"
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"y", IfMatch='"other"') == "PreconditionFailed"
    assert status(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag) == 304
    assert code(s3.get_object, Bucket=bucket, Key="k", IfMatch='"other"') == "PreconditionFailed"
    assert body(s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)) == b"x"
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert status(s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=modified) == 304


def test_an_overwritten_object_leaves_nothing_behind(s3, bucket: str, store: Store) -> None:
    for text in (b"one", b"two", b"three"):
        s3.put_object(Bucket=bucket, Key="k", Body=text)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"three"
    assert len(blobs(store)) == 1
    s3.delete_object(Bucket=bucket, Key="k")
    assert blobs(store) == []
    assert code(s3.get_object, Bucket=bucket, Key="k") == "NoSuchKey"
    s3.delete_object(Bucket=bucket, Key="k")


def test_an_object_being_read_survives_its_deletion(s3, bucket: str, store: Store) -> None:
    data = os.urandom(4 * MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    stream = s3.get_object(Bucket=bucket, Key="k")["Body"]
    first = stream.read(1000)
    s3.delete_object(Bucket=bucket, Key="k")
    assert first + stream.read() == data


def test_listing_pages_and_groups(s3, bucket: str) -> None:
    for key in ("a", "b/1", "b/2", "c d", "é"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [item["Key"] for page in pages for item in page["Contents"]] == ["a", "b/1", "b/2", "c d", "é"]
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [item["Key"] for page in pages for item in page["Contents"]] == ["a", "b/1", "b/2", "c d", "é"]
    grouped = s3.list_objects_v2(Bucket=bucket, Delimiter="/", StartAfter="a")
    assert [item["Prefix"] for item in grouped["CommonPrefixes"]] == ["b/"]
    assert [item["Key"] for item in grouped["Contents"]] == ["c d", "é"]
    assert code(s3.list_objects_v2, Bucket=bucket, ContinuationToken="?") == "InvalidArgument"


def test_many_are_deleted_at_once(s3, bucket: str) -> None:
    for key in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert code(s3.delete_bucket, Bucket=bucket) == "BucketNotEmpty"
    keys = [{"Key": key} for key in ("a", "b", "absent")]
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})["Deleted"]
    assert [item["Key"] for item in deleted] == ["a", "b", "absent"]
    s3.delete_bucket(Bucket=bucket)


def test_a_copy_is_another_object_with_the_same_bytes(s3, bucket: str, store: Store) -> None:
    s3.put_object(Bucket=bucket, Key="from é", Body=b"bytes", Metadata={"a": "1"}, ContentType="text/x")
    s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from é"})
    s3.delete_object(Bucket=bucket, Key="from é")
    found = s3.get_object(Bucket=bucket, Key="to")
    assert (body(found), found["Metadata"], found["ContentType"]) == (b"bytes", {"a": "1"}, "text/x")
    itself = {"Bucket": bucket, "Key": "to"}
    assert code(s3.copy_object, CopySource=itself, **itself) == "InvalidRequest"
    s3.copy_object(CopySource=itself, MetadataDirective="REPLACE", Metadata={"b": "2"}, **itself)
    assert s3.head_object(**itself)["Metadata"] == {"b": "2"}
    assert len(blobs(store)) == 1


def test_boto3_uploads_in_parts_what_is_large(s3, bucket: str, store: Store) -> None:
    data = os.urandom(12 * MIB)
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=5 * MIB, max_concurrency=3)
    s3.upload_fileobj(io.BytesIO(data), bucket, "parts", ExtraArgs={"Metadata": {"a": "1"}}, Config=config)
    head = s3.head_object(Bucket=bucket, Key="parts", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert head["ChecksumCRC32"].endswith("-3")
    assert head["Metadata"] == {"a": "1"}
    out = io.BytesIO()
    s3.download_fileobj(bucket, "parts", out, Config=config)
    assert out.getvalue() == data
    across = s3.get_object(Bucket=bucket, Key="parts", Range=f"bytes={5 * MIB - 3}-{5 * MIB + 3}")
    assert body(across) == data[5 * MIB - 3 : 5 * MIB + 4]
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_an_upload_is_completed_only_as_its_parts_allow(s3, bucket: str, store: Store) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    etags = [
        s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=b"small")["ETag"] for number in (1, 2)
    ]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

    def complete(parts: list[dict]) -> str:
        return code(s3.complete_multipart_upload, **where, UploadId=upload, MultipartUpload={"Parts": parts})

    assert complete(parts) == "EntityTooSmall"
    assert complete(parts[::-1]) == "InvalidPartOrder"
    assert complete([{"PartNumber": 3, "ETag": etags[0]}]) == "InvalidPart"
    assert complete([{"PartNumber": 1, "ETag": '"00"'}]) == "InvalidPart"
    assert [part["Size"] for part in s3.list_parts(**where, UploadId=upload)["Parts"]] == [5, 5]
    assert [item["Key"] for item in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts[1:]})
    assert body(s3.get_object(**where)) == b"small"
    assert len(blobs(store)) == 1
    assert code(s3.upload_part, **where, UploadId=upload, PartNumber=1, Body=b"") == "NoSuchUpload"


def test_an_aborted_upload_leaves_nothing(s3, bucket: str, store: Store) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(**where, UploadId=upload)
    assert blobs(store) == []


def test_a_part_may_be_a_range_of_another_object(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="from", Body=b"0123456789")
    where = {"Bucket": bucket, "Key": "to"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    copied = s3.upload_part_copy(
        **where, UploadId=upload, PartNumber=1, CopySource=f"{bucket}/from", CopySourceRange="bytes=2-5"
    )
    parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    assert body(s3.get_object(**where)) == b"2345"


def test_a_presigned_url_opens_one_object_for_a_while(s3, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    put = s3.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(put, data=b"by hand", method="PUT"), timeout=10).close()
    get = s3.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "text/x"}, ExpiresIn=60)
    with urllib.request.urlopen(get, timeout=10) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"by hand", "text/x")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(get.replace("/k?", "/other?"), timeout=10)
    assert caught.value.code == 403


def test_who_is_not_known_or_not_right_is_refused(client_for, s3_url: str) -> None:
    assert code(client_for("nobody", "nova").list_buckets) == "InvalidAccessKeyId"
    assert code(client_for("nova", "wrong").list_buckets) == "SignatureDoesNotMatch"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(s3_url, timeout=10)
    assert caught.value.code == 403


def test_a_bucket_belongs_to_its_project(s3, bucket: str, other_user, client_for) -> None:
    other = client_for(*other_user)
    assert other.list_buckets()["Buckets"] == []
    assert code(other.list_objects_v2, Bucket=bucket) == "AccessDenied"
    assert code(other.create_bucket, Bucket=bucket) == "BucketAlreadyExists"
    assert code(other.put_object, Bucket=bucket, Key="k", Body=b"") == "AccessDenied"
    other.create_bucket(Bucket="theirs")
    copy = {"Bucket": "theirs", "Key": "k", "CopySource": f"{bucket}/k"}
    assert code(other.copy_object, **copy) == "AccessDenied"
    s3.head_bucket(Bucket="theirs")  # the development user is an administrator


@pytest.fixture
def other_user(store: Store) -> tuple[str, str]:
    with session.begin() as s:
        user = users.create(s, "other", access_key="OTHER")
        return user.access_key, user.secret_key


def test_what_the_store_does_not_do_is_said(s3, bucket: str) -> None:
    assert code(s3.get_bucket_acl, Bucket=bucket) == "NotImplemented"
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"", ChecksumCRC32C="AAAAAA==") == "InvalidRequest"
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"", ContentMD5="AAAA") == "BadDigest"
    for wish in (
        {"ACL": "public-read"},
        {"ServerSideEncryption": "AES256"},
        {"Tagging": "a=b"},
        {"StorageClass": "GLACIER"},
    ):
        assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"", **wish) == "NotImplemented"
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ACL="private", StorageClass="STANDARD")


def raw(url: str, head: str, payload: bytes = b"") -> bytes:
    """Send bytes as they are, half close, and return everything that comes back."""
    import socket

    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + payload)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ("Content-Length: 1000", b"only this"),
        ("Transfer-Encoding: chunked", b"9\r\nonly this\r\n"),
        ("Transfer-Encoding: chunked", b"9\r\nonly th"),
        ("Transfer-Encoding: chunked", b"-9\r\nonly this\r\n0\r\n\r\n"),
    ],
)
def test_a_body_that_breaks_off_stores_nothing(
    s3, bucket: str, store: Store, s3_url: str, how: str, body: bytes
) -> None:
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    head = f"PUT {url.path}?{url.query} HTTP/1.1\nHost: {url.netloc}\n{how}"
    assert b"IncompleteBody" in raw(s3_url, head, body)
    assert blobs(store) == []
    assert code(s3.get_object, Bucket=bucket, Key="k") == "NoSuchKey"


def test_a_full_disk_stores_nothing_and_is_said(s3, bucket: str, store: Store) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")

    def write(writer: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.write = write  # type: ignore[method-assign]
    assert code(s3.put_object, Bucket=bucket, Key="k", Body=b"after") == "ServiceUnavailable"
    del store.write
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"before"
    assert len(blobs(store)) == 1


def test_a_chunked_body_is_unwrapped_and_its_trailer_checked(s3, bucket: str, s3_url: str) -> None:
    """What boto3 sends over TLS, sent here by a presigned URL over plain HTTP."""
    headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-decoded-content-length": "5"}
    digests = Digests("crc32")
    digests.update(b"hello")
    good = f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{digests.checksum}\r\n\r\n".encode()
    assert chunked_put(s3, bucket, headers, good) == 200
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"hello"
    assert chunked_put(s3, bucket, headers, good.replace(b"hello", b"jello")) == 400
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"hello"


def chunked_put(s3, bucket: str, headers: dict[str, str], payload: bytes) -> int:
    """A PUT signed by botocore's own signer for a body that is sent in chunks."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    class Signer(S3SigV4Auth):
        def payload(self, request):  # the value of the header is what is signed
            return headers["x-amz-content-sha256"]

    sent = {**headers, "x-amz-trailer": "x-amz-checksum-crc32", "content-encoding": "aws-chunked"}
    request = AWSRequest("PUT", f"{s3.meta.endpoint_url}/{bucket}/k", headers=sent, data=payload)
    Signer(s3._request_signer._credentials, "s3", "nova").add_auth(request)
    url = urlsplit(request.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request("PUT", url.path, payload, dict(request.headers))
    result = connection.getresponse().status
    connection.close()
    return result


def test_a_request_signed_for_another_service_is_refused(s3_url: str) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", f"{s3_url}/")
    S3SigV4Auth(Credentials("nova", "nova"), "ec2", "nova").add_auth(request)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(s3_url + "/", headers=dict(request.headers)), timeout=10)
    assert b"signed for" in caught.value.read()


def test_a_body_in_http_chunks_without_a_length_is_stored(s3, bucket: str) -> None:
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request("PUT", f"{url.path}?{url.query}", iter([b"one ", b"two"]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"one two"


def test_garbage_is_answered_and_the_server_goes_on(s3, bucket: str, s3_url: str) -> None:
    for head in (
        "GET /%ff%fe HTTP/1.1\nHost: x",
        "PUT /first/k HTTP/1.1\nHost: x\nAuthorization: AWS4-HMAC-SHA256 Credential=\nContent-Length: 0",
        "GET /?X-Amz-Signature=0&X-Amz-Date=%00 HTTP/1.1\nHost: x",
        "PUT /first/k HTTP/1.1\nHost: x\nContent-Length: many",
        "GET / HTTP/1.1\nHost: x\nAuthorization: AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request,"
        " SignedHeaders=host, Signature=\xff\nX-Amz-Date: 20260101T000000Z",
    ):
        assert raw(s3_url, head)[:10] in (b"HTTP/1.1 4", b"HTTP/1.0 4")
    s3.head_bucket(Bucket=bucket)
