"""What arrives as a body: aws-chunked framing, checksums, XML; and what must not get through."""

from __future__ import annotations

import base64
import hashlib
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova import sigv4
from nova.objectstore import checksum, names, xml
from nova.objectstore.chunked import ChunkedDecoder, ChunkKey
from nova.objectstore.errors import S3Error

BODY = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"


def code(function, *args) -> str:
    with pytest.raises(S3Error) as caught:
        function(*args)
    return caught.value.code


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_chunked_body_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    decoder = ChunkedDecoder()
    assert b"".join(decoder.feed(piece) for piece in pieces(BODY, cuts)) == b"hello world"
    assert decoder.finish() == {"x-amz-checksum-crc32": "AAAA"}


def test_a_body_that_stops_before_its_last_chunk_is_incomplete() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(BODY[:20])
    assert code(decoder.finish) == "IncompleteBody"


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n", b"-1\r\n", b"2\r\nabc\r\n", b"a" * 5000, b"0\r\nno colon\r\n", b"0\r\n\r\nmore"],
    ids=["not hex", "negative", "too long", "endless line", "trailer", "after the end"],
)
def test_a_body_that_is_not_chunked_is_refused(body: bytes) -> None:
    assert code(ChunkedDecoder().feed, body) == "InvalidRequest"


@given(st.binary(max_size=300))
def test_garbage_gives_an_s3_error_or_nothing(data: bytes) -> None:
    decoder = ChunkedDecoder()
    try:
        decoder.feed(data)
        decoder.finish()
    except S3Error:
        pass


# The example of AWS's own documentation: 66560 bytes "a" in chunks of 64 KiB and 1 KiB.
SIGNED = sigv4.Signed(
    access_key="AKIAIOSFODNN7EXAMPLE",
    date="20130524",
    region="us-east-1",
    service="s3",
    timestamp="20130524T000000Z",
    signed_headers=("host",),
    signature="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    payload_hash=None,
)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SIGNATURES = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)


def signed_body(payload: bytes = b"a" * 66560) -> bytes:
    parts = (payload[:65536], payload[65536:], b"")
    return b"".join(
        b"%x;chunk-signature=%s\r\n%s\r\n" % (len(part), signature.encode(), part)
        for part, signature in zip(parts, SIGNATURES, strict=True)
    )


def signed_decoder() -> ChunkedDecoder:
    return ChunkedDecoder(ChunkKey(sigv4.signing_key(SECRET, SIGNED), SIGNED))


def test_the_signed_chunks_of_the_documentation_are_accepted() -> None:
    decoder = signed_decoder()
    assert decoder.feed(signed_body()) == b"a" * 66560
    assert decoder.finish() == {}


def test_a_changed_or_unsigned_chunk_is_refused() -> None:
    assert code(signed_decoder().feed, signed_body(b"b" + b"a" * 66559)) == "SignatureDoesNotMatch"
    assert code(signed_decoder().feed, BODY) == "InvalidRequest"


def test_digests_are_those_of_hashlib_and_zlib() -> None:
    digests = checksum.Digests("crc32")
    digests.update(b"hello ")
    digests.update(b"world")
    assert digests.etag == hashlib.md5(b"hello world").hexdigest()
    assert digests.checksum == base64.b64encode(zlib.crc32(b"hello world").to_bytes(4, "big")).decode()
    digests.check_payload_hash(hashlib.sha256(b"hello world").hexdigest())
    assert code(digests.check_payload_hash, hashlib.sha256(b"other").hexdigest()) == "XAmzContentSHA256Mismatch"


def test_an_announced_digest_that_differs_is_a_bad_digest() -> None:
    digests = checksum.Digests("sha1")
    digests.update(b"x")
    other = base64.b64encode(hashlib.sha1(b"y").digest()).decode()
    assert code(digests.check_announced, {"x-amz-checksum-sha1": other}) == "BadDigest"
    assert code(digests.check_announced, {"content-md5": "AAAA"}) == "BadDigest"
    assert code(digests.check_announced, {"content-md5": "???"}) == "InvalidDigest"
    digests.check_announced({"x-amz-checksum-sha1": base64.b64encode(hashlib.sha1(b"x").digest()).decode()})


@pytest.mark.parametrize("name", ["crc32c", "crc64nvme"])
def test_a_checksum_that_cannot_be_computed_is_refused_rather_than_ignored(name: str) -> None:
    assert code(checksum.algorithm_of, {f"x-amz-checksum-{name}": "AAAA"}) == "InvalidRequest"
    assert code(checksum.algorithm_of, {"x-amz-trailer": f"x-amz-checksum-{name}"}) == "InvalidRequest"


def test_what_says_nothing_of_a_checksum_has_none() -> None:
    assert checksum.algorithm_of({"x-amz-checksum-mode": "ENABLED"}) is None
    assert checksum.algorithm_of({"x-amz-trailer": "x-amz-checksum-crc32"}) == "crc32"


def test_xml_out_is_xml_in() -> None:
    body = xml.document(
        "Delete", {"Object": [{"Key": "a<&>\r\n\x00"}, {"Key": "b"}], "Quiet": True, "Gone": None}
    )
    tree = xml.parse(body, "Delete")
    assert [item.text for item in tree.findall("Object/Key")] == ["a<&>\r\n�", "b"]
    assert tree.findtext("Quiet") == "true"
    assert tree.find("Gone") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<Delete>", b"<Other/>", b'<!DOCTYPE Delete [<!ENTITY a "aaaa">]><Delete>&a;</Delete>'],
    ids=["empty", "open", "other root", "entity"],
)
def test_xml_that_is_not_the_document_asked_for_is_malformed(body: bytes) -> None:
    assert code(xml.parse, body, "Delete") == "MalformedXML"


@pytest.mark.parametrize("name", ["ab", "a" * 64, "Upper", "a..b", "-a-", "10.0.0.1", "a/b", "a_b", "..", "a\n"])
def test_a_bad_bucket_name_is_refused(name: str) -> None:
    assert code(names.check_bucket, name) == "InvalidBucketName"


def test_bucket_names_of_the_documentation_are_accepted() -> None:
    for name in ("docexamplebucket1", "log-delivery-march-2020", "my.example.com", "abc"):
        names.check_bucket(name)


def test_a_key_has_1_to_1024_bytes() -> None:
    assert names.check_key("é" * 512) == "é".encode() * 512
    assert code(names.check_key, "é" * 513) == "KeyTooLongError"
    assert code(names.check_key, "") == "InvalidArgument"
    assert code(names.check_key, "\udc80") == "InvalidArgument"
