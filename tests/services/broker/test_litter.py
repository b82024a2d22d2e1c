"""When the broker looks for cycles: each case in an interpreter of its own, whose collector it changes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from nova.broker.litter import Litter, FEW_BYTES
litter, automatic = Litter(), []
gc.callbacks.append(lambda phase, info: automatic.append(info["generation"]) if phase == "start" else None)
kept = [[number] for number in range(400_000)]
assert 1 in automatic and 2 not in automatic, "the interpreter makes no full look by itself"
{case}
"""


def run(case: str) -> None:
    program = PROGRAM.format(case=case)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_while_messages_are_few_cycles_are_found() -> None:
    run(
        "import weakref\nclass Connection: pass\n"
        "closed = Connection(); closed.me = closed; gone = weakref.ref(closed)\n"
        "gc.collect(1); gc.collect(1)\ndel closed\nmore = [[number] for number in range(200_000)]\nassert gone()\n"
        "assert litter.end_turn(0, 1)\nassert gone() is None\n"
        "assert not litter.end_turn(0, 1), 'not in every turn'"
    )


def test_many_messages_are_not_looked_through_for_a_few_connections() -> None:
    run("assert not litter.end_turn(FEW_BYTES + 1, 999)\nassert 2 not in automatic")


def test_but_for_many_connections_they_are() -> None:
    run("assert litter.end_turn(FEW_BYTES + 1, 1000)\nassert automatic[-1] == 2")
