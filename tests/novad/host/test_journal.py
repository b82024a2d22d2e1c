"""The journal: bounded, whole, in order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# The events come together behind a disk that is held up.
PROGRAM = """
import sys, threading
from novad.host import journal
from novad.host.disk import Disk
journal.MAX_BYTES = 200_000
room, disk = threading.Event(), Disk()
made = journal.Journal(sys.argv[1], disk)
disk.submit(room.wait)
for number in range(10_000):
    made.write("state", name="a service", number=number)
room.set()
disk.drain(60.0)
"""


def test_the_journal_is_two_files_of_its_size_whatever_comes_together(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    older, newer = (tmp_path / "journal.1").read_text(), path.read_text()
    assert 0 < len(newer) <= 200_000
    assert 0 < len(older) <= 200_000
    numbers = [json.loads(line)["number"] for line in (older + newer).splitlines()]
    assert numbers == list(range(numbers[0], 10_000))
