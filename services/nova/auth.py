"""Who signed this request: an access key becomes a user of a project.

Keys come from the flags (one user for development, an administrator) or from the `users` table
(`nova-manage user create`). It must not know which API asks: that one translates `SignatureError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from nova import flags, sigv4
from nova.db import session, users
from nova.sigv4 import HttpRequest, Signed

FLAGS = flags.FLAGS
flags.DEFINE_string("ec2_access_key", "nova", "access key of the development user; empty for none")
flags.DEFINE_string("ec2_secret_key", "nova", "secret key of the development user", secret=True)
flags.DEFINE_string("ec2_project", "nova", "project of the development user")


@dataclass(frozen=True)
class Identity:
    """A user as the holder of a pair of keys."""

    user_id: str
    project_id: str
    is_admin: bool
    secret_key: str = field(repr=False)


def find(access_key: str) -> Identity | None:
    """The holder of an access key. `KEY:PROJECT` acts in another project, which only an administrator may."""
    key, _, project_id = access_key.partition(":")
    found = _from_flags(key) or _from_database(key)
    if found is None or not project_id or project_id == found.project_id:
        return found
    if not found.is_admin:
        return None
    return Identity(found.user_id, project_id, found.is_admin, found.secret_key)


def authenticate(request: HttpRequest, body: bytes | None = None) -> tuple[Identity, Signed]:
    """The user who signed `request`. Raises `SignatureError`, `DatabaseUnavailable`."""
    found: dict[str, Identity] = {}

    def secret_of(access_key: str) -> str | None:
        identity = find(access_key)
        if identity is None:
            return None
        found[access_key] = identity
        return identity.secret_key

    signed = sigv4.verify(request, secret_of, datetime.now(UTC), body)
    return found[signed.access_key], signed


def _from_flags(access_key: str) -> Identity | None:
    if not access_key or access_key != FLAGS.ec2_access_key or not FLAGS.ec2_secret_key:
        return None
    return Identity(access_key, FLAGS.ec2_project, True, FLAGS.ec2_secret_key)


def _from_database(access_key: str) -> Identity | None:
    with session.read() as s:
        user = users.by_access_key(s, access_key)
    return Identity(user.name, user.project_id, user.is_admin, user.secret_key) if user else None
