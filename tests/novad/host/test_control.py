"""One connection of the control socket, moment by moment."""

from __future__ import annotations

import subprocess
import sys

# A second question comes while the first is in hand, so that nothing more is read; then the first answer is too much.
PROGRAM = """
import socket, time
from novad.core import wire
from novad.host import control
import eventlet
control.FRAME_S = 0.2
ours, theirs = socket.socketpair()
ours.setblocking(False)
asked = []
desk = control.Desk(lambda _, request: asked.append(request), lambda: None)
connection = control.Connection(ours, desk)
theirs.sendall(wire.encode(wire.Request(1, "status")))
eventlet.sleep(0.01)
theirs.sendall(wire.encode(wire.Request(2, "status")))
eventlet.sleep(0.01)
assert [request.id for request in asked] == [1], asked
connection.reply(asked[0], {"text": "x" * 900_000})
connection.handled()
until_s = time.monotonic() + 5.0
while connection.is_open and time.monotonic() < until_s:
    eventlet.sleep(0.01)
print("open" if connection.is_open else "cut off")
"""


def test_who_takes_no_answer_is_cut_off_though_its_next_question_was_not_read() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("cut off\n", "")
