"""EC2's ids: i-0000002a is the instance 42. Pure."""

from __future__ import annotations

import re
import secrets

from nova.api.errors import Ec2Error

# prefix -> (code for an id that is none, code for one that does not exist)
_CODES = {
    "i": ("InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound"),
    "vol": ("InvalidVolumeID.Malformed", "InvalidVolume.NotFound"),
    "ami": ("InvalidAMIID.Malformed", "InvalidAMIID.NotFound"),
    "sg": ("InvalidGroupId.Malformed", "InvalidGroup.NotFound"),
    "key": ("InvalidKeyPair.NotFound", "InvalidKeyPair.NotFound"),
}
_LARGEST = 2**31 - 1  # of the database's integers


def of(prefix: str, number: int) -> str:
    return f"{prefix}-{number:08x}"


def parse(prefix: str, text: str) -> int:
    """The number of an id. Raises `Ec2Error`; an id too large to exist is simply not found."""
    if not re.fullmatch(rf"{prefix}-[0-9a-f]{{8}}([0-9a-f]{{9}})?", text):
        raise Ec2Error(_CODES[prefix][0], f"{text[:80]!r} is not an id like {of(prefix, 42)}")
    number = int(text.partition("-")[2], 16)
    if not 0 < number <= _LARGEST:
        raise not_found(prefix, text)
    return number


def not_found(prefix: str, *texts: str) -> Ec2Error:
    verb = "does" if len(texts) == 1 else "do"
    return Ec2Error(_CODES[prefix][1], f"{', '.join(texts)} {verb} not exist")


def reservation() -> str:
    return f"r-{secrets.token_hex(4)}"
