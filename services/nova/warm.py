"""What every service does when it starts, done once before services are forked: named in nova.toml's `preload`.

A forked process shares memory with its template for as long as neither writes to it. SQLAlchemy builds much of what it
needs when a statement is first used, which each service would otherwise do for itself, in memory of its own.

Invariant: nothing stays but caches. The database is in memory and gone at the end, with its connection; no descriptor,
thread, greenlet or changed flag is left, and no service's state is touched.
"""

from __future__ import annotations

from nova import flags
from nova.db import images, instances, networks, services, session, volumes

FLAGS = flags.FLAGS


def database() -> None:
    """Go through the statements that the services begin with, on an empty database in memory."""
    with FLAGS.override(sql_connection="sqlite://"):
        try:
            _statements()
        finally:
            session.dispose()


def _statements() -> None:
    session.sync()
    session.sync()  # now it finds its tables, as all services but the first do
    for state in ("starting", "ready"):
        services.report("warm", "nova-warm", "warm", state=state)
    services.get_all()
    with session.begin() as s:
        networks.create(s, "warm", "10.0.0.0/28")
        networks.get_all(s)
        networks.add_floating(s, ["172.24.4.1"])
        images.ensure_default(s)
        instances.on_host(s, "warm")
        volumes.in_status(s, volumes.CREATING, host="warm")
