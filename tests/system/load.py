"""Calls and casts at a steady pace, from a process of its own: `python -m tests.system.load [flags]`.

Operation n is a call of `add(n)` if n is even, a cast if it is odd; each has a greenlet of its own, so that one
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

FLAGS = flags.FLAGS
flags.DEFINE_string("tally_at", "tally", "the topic")
flags.DEFINE_integer("operations", 100, "how many")
flags.DEFINE_float("pace", 100.0, "operations a second")
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
        for n in range(FLAGS.operations):
            while n >= self._permitted:
                self._more.wait()
                due_s = time.monotonic()
            green.sleep(max(0.0, due_s - time.monotonic()))
            due_s += 1 / FLAGS.pace
            threads.append(green.spawn(self._operate, n))
            if (n + 1) % every == 0:
                print("launched", n + 1, flush=True)
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
            if n % 2:
                self._client.cast(self._context, "add", n=n)
                return None
            answer: Any = self._client.call(self._context, "add", n=n)
            return None if answer == n * n else f"wrong: {answer!r}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

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
