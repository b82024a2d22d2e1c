"""A service that counts, for experiments that kill it: how often an operation took effect, and how often it ran.

An effect and the key of its message are one transaction, as in any service that must not do a thing twice; each
execution leaves a line in a file before it does anything. `--broken` takes one promise away on purpose.
"""

from __future__ import annotations

import ctypes
import os
import uuid

import sqlalchemy
from nova import flags, green, manager
from nova.db import session
from nova.rpc import serving
from nova.rpc.server import Server
from nova.rpc.transport import Delivery

FLAGS = flags.FLAGS
flags.DEFINE_float("hold_s", 0.0, "seconds that an operation takes before its effect")
flags.DEFINE_float("linger_s", 0.0, "seconds that it takes after its effect")
flags.DEFINE_enum("broken", "", ("", "dedupe", "early-ack", "liar", "graveless"), "what is taken away")

TABLES = (
    "create table if not exists counter (id integer primary key, value integer not null)",
    "insert into counter values (1, 0) on conflict do nothing",
    "create table if not exists effects (key varchar(64) primary key, n integer not null)",
)


def _acknowledge_first() -> None:
    """What Nova did until 2026: a message is gone before it is run."""
    serve = Server._serve

    def hasty(self: Server, delivery: Delivery) -> None:
        self._ack(delivery)
        serve(self, delivery)

    Server._serve = hasty  # type: ignore[method-assign]


def _bury_nothing() -> None:
    """What cannot be run is thrown away."""

    def keep_dead(self: Server, *what: object) -> None:
        return None

    Server._keep_dead = keep_dead  # type: ignore[assignment,method-assign]


if FLAGS.broken == "graveless":
    _bury_nothing()
if FLAGS.broken == "early-ack":
    _acknowledge_first()


class Tally(manager.Manager):
    def init_host(self) -> None:
        with session.begin() as s:
            for statement in TABLES:
                s.execute(sqlalchemy.text(statement))

    def add(self, context: object, n: int) -> int:
        """Count `n` once, however often the message comes. The square of `n`."""
        self._note(f"add {n}")
        if FLAGS.broken == "liar":
            return n * n
        green.sleep(FLAGS.hold_s)
        self._take_effect(n)
        green.sleep(FLAGS.linger_s)
        return n * n

    def block(self, context: object, n: int, seconds: float, holds_gil: bool) -> int:
        """Stand in the way of everything else in this process for `seconds`, in C."""
        self._note(f"block {n}")
        library: ctypes.CDLL = ctypes.PyDLL(None) if holds_gil else ctypes.CDLL(None)
        library.usleep(int(seconds * 1_000_000))
        self._take_effect(n)
        return n * n

    def die(self, context: object, n: int) -> None:
        self._note(f"die {n}")
        os._exit(9)

    def fail(self, context: object, n: int) -> None:
        self._note(f"fail {n}")
        raise OSError(f"{n} cannot be added")

    def _take_effect(self, n: int) -> None:
        call = serving.current()
        assert call is not None, "only messages are counted"
        key = uuid.uuid4().hex if FLAGS.broken == "dedupe" else call.unique_id
        once = sqlalchemy.text("insert into effects values (:key, :n) on conflict do nothing")
        with session.begin() as s:
            if s.execute(once, {"key": key, "n": n}).rowcount:  # type: ignore[attr-defined]
                s.execute(sqlalchemy.text("update counter set value = value + 1"))

    def _note(self, line: str) -> None:
        """One write, appended whole whoever else writes."""
        file = os.open(f"{FLAGS.state_path}/executions", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{line} {os.getpid()}\n".encode())
        os.close(file)
