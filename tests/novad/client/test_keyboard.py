"""The keys of an attached command, at a terminal that goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

# In a session of its own: the kernel's own signal for the end of the terminal does not come.
READING = """
import signal, sys
from novad.client.keyboard import Keyboard
{before}
with Keyboard(sys.stdin) as keyboard:
    print("reading", flush=True)
    print(keyboard.read(), keyboard.sources(), flush=True)
"""


@pytest.mark.parametrize(
    ("before", "said", "code"),
    [("", "", -signal.SIGHUP), ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", "[] []\n", 0)],
)
def test_the_end_of_the_terminal_is_a_hang_up(before: str, said: str, code: int) -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", READING.format(before=before)], stdin=theirs, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, text=True,
    )  # fmt: skip
    os.close(theirs)
    assert child.stdout is not None
    assert child.stdout.readline() == "reading\n"
    os.close(ours)
    assert child.stdout.read() == said
    assert child.wait(20) == code
    child.stdout.close()
