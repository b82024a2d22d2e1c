"""Calls and casts at a steady pace, from a process of its own: `python -m tests.system.load [flags]`.

Operation n is a call of `add(n)` if n is even, a cast if it is odd, unless flags make it a poison or a call that
blocks; each has a greenlet of its own, so that one
that waits holds up no other. How many may be launched is read from stdin, a number a line, each replacing the
one before; `launched N` is written on the way, and a line of JSON at the end: `left`, how many calls and messages
somebody still waits for, and `operations`: of each its n, when it began and ended (monotonic, s), and what went
wrong, or null.
"""

from nova import green

green.patch()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from nova import context, flags, rpc  # noqa: E402
from nova.rpc.link import Link  # noqa: E402
from nova.rpc.transport import Message  # noqa: E402

from tests.system.poisons import POISONS, is_poison  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("tally_at", "tally", "the topic")
flags.DEFINE_integer("operations", 100, "how many")
flags.DEFINE_float("pace", 100.0, "operations a second")
flags.DEFINE_integer("poison_every", 0, "which operations are poison: every so many, in all kinds by turns")
flags.DEFINE_float(
    "block_s", 0.0, "operations block the hub for so many seconds, every second one the interpreter"
)
flags.DEFINE_integer("first", 0, "number of the first operation")
flags.DEFINE_bool("confirms", True, "wait until the broker has a cast")


def _send_and_forget(self: Link, message: Message, timeout_s: float) -> None:
    self.send(message)


class Load:
    def __init__(self) -> None:
        self.results: list[tuple[int, float, float, str | None]] = []
        self._client = rpc.Client(FLAGS.tally_at)
        self._context = context.get_admin_context()
        self._permitted = 0
        self._more = green.Event()

    def run(self) -> None:
        green.spawn(self._read_permits)
        every = max(1, FLAGS.operations // 200)
        threads, due_s = [], time.monotonic()
        for number in range(FLAGS.operations):
            while number >= self._permitted:
                self._more.wait()
                due_s = time.monotonic()
            green.sleep(max(0.0, due_s - time.monotonic()))
            due_s += 1 / FLAGS.pace
            threads.append(green.spawn(self._operate, FLAGS.first + number))
            if (number + 1) % every == 0:
                print("launched", number + 1, flush=True)
        for thread in threads:
            thread.wait()
        caller = rpc._client()
        left = len(caller._waiting) + len(caller._link._posts)
        print(json.dumps({"left": left, "operations": self.results}), flush=True)

    def _operate(self, n: int) -> None:
        began_s = time.monotonic()
        error = self._add(n)
        self.results.append((n, began_s, time.monotonic(), error))

    def _add(self, n: int) -> str | None:
        try:
            if is_poison(n, FLAGS.poison_every):
                self._poison(n)
                return None
            if FLAGS.block_s:
                self._client.call(self._context, "block", n=n, seconds=FLAGS.block_s, holds_gil=bool(n % 2))
                return None
            if n % 2:
                self._client.cast(self._context, "add", n=n)
                return None
            answer: Any = self._client.call(self._context, "add", n=n)
            return None if answer == n * n else f"wrong: {answer!r}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _poison(self, n: int) -> None:
        kind = POISONS[n // FLAGS.poison_every % len(POISONS)]
        if kind == "bytes":
            link = rpc._client()._link
            link.deliver(
                Message(b"\xff{", "nova", FLAGS.tally_at, f"bytes-{n}", persistent=True, mandatory=True), 30
            )
        elif kind == "arguments":
            self._client.cast(self._context, "add", number=n)
        else:
            self._client.cast(self._context, kind, n=n)

    def _read_permits(self) -> None:
        while line := green.tpool.execute(sys.stdin.readline):
            self._permitted = int(line)
            more, self._more = self._more, green.Event()
            more.send()


if __name__ == "__main__":
    FLAGS(sys.argv)
    if not FLAGS.confirms:
        Link.deliver = _send_and_forget  # type: ignore[method-assign]
    Load().run()
    rpc.cleanup()
