"""What a bucket and a key may be called. Pure.

A name never becomes part of a file name (see `blobs`), so these rules are S3's alone and not a defence.
"""

from __future__ import annotations

import re

from nova.objectstore.errors import S3Error

MAX_KEY_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


def check_bucket(name: str) -> None:
    """Raises `S3Error` InvalidBucketName; the rules are those of "Bucket naming rules"."""
    if not _BUCKET.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
        raise S3Error(
            "InvalidBucketName",
            f"{name!r}: a bucket is named by 3 to 63 lower-case letters, digits, hyphens and single dots, "
            "begins and ends with a letter or digit, and does not look like an address",
        )


def check_key(key: str) -> bytes:
    """The key as it is stored. Raises `S3Error` KeyTooLongError or InvalidArgument."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise S3Error("InvalidArgument", "a key is UTF-8 text") from None
    if not encoded:
        raise S3Error("InvalidArgument", "a key has at least one character")
    if len(encoded) > MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", f"a key has at most {MAX_KEY_BYTES} bytes, not {len(encoded)}")
    return encoded
