"""nova-compute that dies on purpose: `--die_at=7,12` kills the process at its 7th and 12th point, with SIGKILL.

A point lies before and after each step of a workflow: what is written to the row, to the journal and to the bus,
what is asked of nova-network, what is done to the guest. Points are counted in a file over all lives of a host.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from nova import flags
from nova.compute.fake import FakeDriver
from nova.compute.manager import ComputeManager
from nova.compute.reconcile import Reconciler
from nova.compute.steps import Steps
from nova.rpc import Client
from nova.rpc.journal import Journal, Row
from nova.rpc.server import Server

FLAGS = flags.FLAGS
flags.DEFINE_list("die_at", [], "points at which the process dies")
flags.DEFINE_bool("remembers", True, "whether a restarted service looks for what was interrupted")

STEPS = (
    (Steps, ("begin", "finish")),
    (Client, ("call",)),
    (FakeDriver, ("spawn", "_save", "destroy")),
    (Journal, ("begin", "begin_again", "finish", "replied")),
    (Server, ("_ack",)),
)


def _point(name: str) -> None:
    file = os.open(f"{FLAGS.state_path}/points.{FLAGS.host}", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{name}\n".encode())
    count = os.pread(file, 1024 * 1024, 0).count(b"\n")
    os.close(file)
    if str(count) in FLAGS.die_at:
        os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: type, name: str) -> None:
    step = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _point(f"before {owner.__name__}.{name}")
        result = step(*args, **kwargs)
        _point(f"after {owner.__name__}.{name}")
        return result

    setattr(owner, name, wrapped)


for owner, names in STEPS:
    for name in names:
        _wrap(owner, name)


def _forget() -> None:
    """What had begun is not looked for, neither in the journal nor among the rows."""
    open_journal = Journal.open

    def open_and_forget(self: Journal) -> list[Row]:
        open_journal(self)
        return []

    def find_nothing(self: Reconciler, *args: Any, **options: Any) -> None:
        return None

    Journal.open = open_and_forget  # type: ignore[method-assign]
    Reconciler.instances = find_nothing  # type: ignore[method-assign]


if not FLAGS.remembers:
    _forget()


class Mortal(ComputeManager):
    """As it is; what it is made of counts its steps."""
