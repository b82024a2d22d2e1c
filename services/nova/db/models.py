"""Every table of nova: importing this module makes them known, so that `session.sync` creates them all."""

from nova.db import services, users

__all__ = ["services", "users"]
