"""The pump between a child's pipe and its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# With the patience of a disk that may be slow because the machine is, not because it hangs.
PROGRAM = """
import os, subprocess, sys
from novad.core.spec import Log
from novad.host import output
from novad.host.disk import Disk
from novad.host.hub import Mailbox, Watcher
output.PATIENCE_S = 60.0
mailbox, disk = Mailbox(), Disk()
made = output.Output(Log(sys.argv[1], max_bytes=1 << 40, drop=True), disk, lambda text: None)
child_fd = made.open_pipe("o")
child = subprocess.Popen(["seq", "1", "300000"], stdout=child_fd)
os.close(child_fd)
end = Watcher(os.pidfd_open(child.pid), lambda: mailbox.put("dead"))
mailbox.wait(60.0)
made.end()
disk.drain(60.0)
"""


def test_a_log_that_drops_keeps_a_burst_that_the_disk_can_take(tmp_path: Path) -> None:
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rpartition(" ")[2] for line in path.read_text().splitlines()]
    assert lines == [str(number) for number in range(1, 300_001)]


# The disk's thread is busy elsewhere while a hundred chunks of 10 kB come.
LATE = """
import sys, threading
from novad.core.spec import Log
from novad.host import output
from novad.host.disk import Disk
disk, held = Disk(), threading.Event()
made = output.Output(Log(sys.argv[1], max_bytes=100_000, files=20), disk, lambda text: None)
disk.submit(held.wait)
for number in range(100):
    made.emit(b"x" * 9_999 + b"\\n")
held.set()
disk.drain(60.0)
"""


def test_a_file_keeps_to_its_size_also_where_much_was_waiting(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, str(tmp_path / "log")], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(sizes) == 1_000_000
    assert max(sizes) <= 100_000
