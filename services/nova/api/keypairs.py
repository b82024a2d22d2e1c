"""Key pairs: made by ssh-keygen, or brought along."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from pathlib import Path

from nova import exception, processutils
from nova.api import filters, ids
from nova.api.call import Call, Reply, items, moment, specified_tags, tag_set
from nova.api.errors import Ec2Error
from nova.db import keypairs, session, tags
from nova.db.keypairs import KeyPair

FILTERS = {
    "key-name": filters.field("keyName"),
    "key-pair-id": filters.field("keyPairId"),
    "fingerprint": filters.field("keyFingerprint"),
}
_KINDS = {"rsa": ["-t", "rsa", "-b", "2048"], "ed25519": ["-t", "ed25519"]}


def create_key_pair(call: Call) -> Reply:
    name = call.params.required("KeyName", max_length=255)
    kind = call.params.text("KeyType", "rsa")
    if kind not in _KINDS:
        raise Ec2Error("InvalidParameterValue", f"KeyType is rsa or ed25519, not {kind[:20]!r}")
    _refuse_duplicate(call, name)
    private, public = generate(kind, name)
    made = _store(call, name, kind, public)
    return {**_brief(made, specified_tags(call.params, "key-pair")), "keyMaterial": private}


def import_key_pair(call: Call) -> Reply:
    name = call.params.required("KeyName", max_length=255)
    material = call.params.required("PublicKeyMaterial")
    try:
        public = base64.b64decode(material, validate=True).decode().strip()
    except (binascii.Error, ValueError):
        raise Ec2Error("InvalidKey.Format", "PublicKeyMaterial is a public key in base64") from None
    kind = _kind_of(public)
    made = _store(call, name, kind, public)
    return _brief(made, specified_tags(call.params, "key-pair"))


def describe_key_pairs(call: Call) -> Reply:
    wanted, numbers = call.params.texts("KeyName"), call.params.texts("KeyPairId")
    with session.read() as s:
        found = keypairs.get_all(s, call.project_id)
        tagged = tags.of(s, [ids.of("key", item.id) for item in found])
    views = [_view(item, tagged.get(ids.of("key", item.id), {})) for item in found]
    for name in wanted:
        if name not in {view["keyName"] for view in views}:
            raise _not_found(name)
    for number in numbers:
        if number not in {view["keyPairId"] for view in views}:
            raise _not_found(number)
    views = [
        view
        for view in views
        if not (wanted or numbers) or view["keyName"] in wanted or view["keyPairId"] in numbers
    ]
    return {"keySet": items(filters.apply(call.params, views, FILTERS, lambda view: view))}


def delete_key_pair(call: Call) -> Reply:
    """Deleting a key that is absent succeeds, as in EC2."""
    name = call.params.text("KeyName")
    with session.begin() as s:
        if not name:
            number = ids.parse("key", call.params.required("KeyPairId"))
            found = s.get(KeyPair, number)
            name = found.name if found and found.project_id == call.project_id else ""
        keypairs.delete(s, call.project_id, name)
    return {"return": True}


def generate(kind: str, comment: str) -> tuple[str, str]:
    """(private key, public key) in OpenSSH's formats. Raises `Ec2Error` where ssh-keygen is missing or fails."""
    with tempfile.TemporaryDirectory(prefix="nova-key-") as folder:
        path = Path(folder, "key")
        command = ["ssh-keygen", "-q", "-m", "PEM", *_KINDS[kind], "-N", "", "-C", comment, "-f", str(path)]
        try:
            processutils.execute(*command, timeout=30)
        except exception.ProcessExecutionError as error:
            raise Ec2Error("InternalError", f"ssh-keygen did not make a key: {error.description}") from error
        return path.read_text(), path.with_suffix(".pub").read_text().strip()


def fingerprint(public: str) -> str:
    """The SHA-256 of the key's bytes, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _kind_of(public: str) -> str:
    """Raises `Ec2Error`. The kind stands in the key twice: as its first word, and first in its bytes."""
    words = public.split(None, 2)
    kind = {"ssh-rsa": "rsa", "ssh-ed25519": "ed25519"}.get(words[0]) if len(words) > 1 else None
    try:
        data = base64.b64decode(words[1], validate=True) if kind else b""
    except (binascii.Error, ValueError):
        data = b""
    if kind is None or "\n" in public or data[4 : 4 + len(words[0])] != words[0].encode():
        raise Ec2Error("InvalidKey.Format", "expected one OpenSSH public key, ssh-rsa or ssh-ed25519")
    return kind


def _store(call: Call, name: str, kind: str, public: str) -> KeyPair:
    given = specified_tags(call.params, "key-pair")
    try:
        with session.begin() as s:
            made = keypairs.create(
                s, call.project_id, name, kind=kind, fingerprint=fingerprint(public), public_key=public
            )
            for key, value in given.items():
                tags.put(s, call.project_id, ids.of("key", made.id), key, value)
            return made
    except exception.Duplicate:
        raise Ec2Error("InvalidKeyPair.Duplicate", f"there is a key pair {name} already") from None


def _refuse_duplicate(call: Call, name: str) -> None:
    """Before a key is made in vain; `_store` decides."""
    with session.read() as s:
        if keypairs.find(s, call.project_id, name):
            raise Ec2Error("InvalidKeyPair.Duplicate", f"there is a key pair {name} already")


def _not_found(name: str) -> Ec2Error:
    return Ec2Error("InvalidKeyPair.NotFound", f"there is no key pair {name}")


def _brief(item: KeyPair, tagged: dict[str, str]) -> Reply:
    """As the actions that make a key answer."""
    return {
        "keyPairId": ids.of("key", item.id),
        "keyName": item.name,
        "keyFingerprint": item.fingerprint,
        "tagSet": tag_set(tagged),
    }


def _view(item: KeyPair, tagged: dict[str, str]) -> Reply:
    return {**_brief(item, tagged), "keyType": item.kind, "createTime": moment(item.created_at)}
