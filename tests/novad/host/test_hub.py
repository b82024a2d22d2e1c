"""The hub: what it may be asked to wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Another thread writes, so that the long wait is all that the hub knows of.
PROGRAM = """
import os, sys, threading
from novad.host.hub import Mailbox, Timer, Watcher
mailbox, (reader, writer) = Mailbox(), os.pipe()
watcher = Watcher(reader, lambda: (os.read(reader, 1), mailbox.put("woken")))
threading.Timer(0.2, os.write, (writer, b"x")).start()
if sys.argv[1] == "timer":
    Timer(float(sys.argv[2]), lambda: mailbox.put("too early"))
    mailbox.wait(None)
else:
    mailbox.wait(float(sys.argv[2]))
print(mailbox.take() if mailbox else "too early")
"""


@pytest.mark.parametrize("kind", ["timer", "wait"])
@pytest.mark.parametrize("seconds", ["3e7", "9e15"])
def test_a_year_is_a_time_like_any_other(kind: str, seconds: str) -> None:
    words = [sys.executable, "-c", PROGRAM, kind, seconds]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("woken\n", "")


def test_a_timer_that_is_cut_into_pieces_fires_once_at_its_end() -> None:
    program = """
import time
from novad.host import hub
hub.LONGEST_S = 0.02
mailbox, began_s = hub.Mailbox(), time.monotonic()
hub.Timer(0.1, lambda: mailbox.put(time.monotonic() - began_s))
mailbox.wait(1.0)
print(0.1 <= mailbox.take() < 0.6, bool(mailbox))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_a_watcher_that_is_closed_leaves_nothing_to_the_garbage_collector() -> None:
    program = """
import gc, os, weakref
from novad.host.hub import Watcher
class Owner:
    def __init__(self):
        self.watcher = Watcher(os.pipe()[0], self.read)
    def read(self):
        pass
gc.disable()
owner = Owner()
gone = weakref.ref(owner)
owner.watcher.close()
del owner
print(gone())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("None\n", "")
