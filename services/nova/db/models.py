"""Every table of nova: importing this module makes them known, so that `session.sync` creates them all."""

from nova.db import groups, images, instances, keypairs, networks, services, tags, tokens, users, volumes

__all__ = [
    "groups", "images", "instances", "keypairs", "networks", "services", "tags", "tokens", "users", "volumes"
]  # fmt: skip
