"""A process whose greenlets write to one database: `python -m tests.system.writers GREENLETS WRITES [flags]`.

Prints a line of JSON when all have written: `gap_s`, the longest time that its hub stood still (what the process waited
for a core meanwhile is not counted, where the kernel tells it), `errors`, and how many `writes` were committed.
`--library_waits` breaks it on purpose: sqlite3 waits for locks itself.
"""

from nova import green

green.patch()

import contextlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import sqlalchemy  # noqa: E402
from nova import flags  # noqa: E402
from nova.db import session  # noqa: E402
from sqlalchemy import event  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_bool("library_waits", False, "sqlite3 waits for locks, as Nova let it until 2026")
LIBRARY_WAIT_MS = 5000
TICK_S = 0.005
INCREMENT = sqlalchemy.text("update counter set value = value + 1")


def _starved_s() -> float:
    """How long this thread has waited for a core (proc(5), schedstat), s."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


class Writers:
    def __init__(self) -> None:
        self.writes = 0
        self.errors: list[str] = []
        self.gap_s = 0.0

    def watch(self) -> None:
        """The longest time between two turns of the hub, beyond what was slept."""
        while True:
            began_s = time.monotonic() - _starved_s()
            green.sleep(TICK_S)
            self.gap_s = max(self.gap_s, time.monotonic() - _starved_s() - began_s - TICK_S)

    def write(self, count: int) -> None:
        for _ in range(count):
            try:
                with session.begin() as s:
                    s.execute(INCREMENT)
                    green.sleep(0)  # what a transaction that logs or looks something up does
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
                return
            self.writes += 1


def _let_the_library_wait() -> None:
    database = session.database()
    database._one_writer = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    @event.listens_for(database.engine, "connect")
    def connected(connection: object, record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={LIBRARY_WAIT_MS}")  # type: ignore[attr-defined]


def main(greenlets: int, writes: int) -> None:
    if FLAGS.library_waits:
        _let_the_library_wait()
    with session.begin() as s:
        s.execute(sqlalchemy.text("create table if not exists counter (value integer not null)"))
    writers = Writers()
    print("ready", flush=True)
    sys.stdin.readline()
    green.spawn(writers.watch)
    for thread in [green.spawn(writers.write, writes) for _ in range(greenlets)]:
        thread.wait()
    print(json.dumps({"gap_s": writers.gap_s, "errors": writers.errors, "writes": writers.writes}), flush=True)


if __name__ == "__main__":
    FLAGS([sys.argv[0], *sys.argv[3:]])
    main(int(sys.argv[1]), int(sys.argv[2]))
