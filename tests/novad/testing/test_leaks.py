"""The leak gate: each kind of thing that a command can leave behind is named, and fails nobody who cleans up."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.novad.testing.running import Site

pytestmark = pytest.mark.usefixtures("alone_with_shared_memory")

STORE = '''
[services.store]
command = ["python3", "-c", """
import os, socket
clients = []
with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as server:
    while True:
        clients.append(server.accept()[0])
"""]
ports = { tcp = "auto" }
env = { PORT = "${port.tcp}" }
ready = { tcp = "tcp" }
'''
# What it leaves is a process that has something, or a thing by itself; `clean` undoes it.
LEAVING = """
import os, socket, subprocess, sys, tempfile
from multiprocessing import resource_tracker, shared_memory
kind, is_clean = sys.argv[1], sys.argv[2] == "clean"
path = os.path.join(tempfile.gettempdir(), "left")
HOLD = {
    "process": "pass",
    "port": "s = socket.create_server(('127.0.0.1', 0))",
    "unix port": f"s = socket.socket(socket.AF_UNIX); s.bind('\\\\0left-{os.getpid()}'); s.listen()",
    "connection": "s = socket.create_connection(('127.0.0.1', int(os.environ['STORE_PORT_TCP'])))",
}
if kind in HOLD:
    code = f"import os, socket, time; {HOLD[kind]}; print(1, flush=True); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    if is_clean:
        child.kill()
        child.wait()
elif kind == "memory":
    memory = shared_memory.SharedMemory(create=True, size=10)
    resource_tracker.unregister(memory._name, "shared_memory")
    print(memory._name)
    if is_clean:
        os.unlink("/dev/shm/" + memory._name.lstrip("/"))
elif kind == "file":
    open(path, "w").close()
elif kind == "directory":
    os.mkdir(path)
elif kind == "socket":
    socket.socket(socket.AF_UNIX).bind(path)
if is_clean and os.path.lexists(path):
    os.rmdir(path) if kind == "directory" else os.unlink(path)
"""
SAID = {
    "process": r"process \d+ \(.*python.*\)",
    "port": r"process \d+ \(.*\), listens on port \d+",
    "unix port": r"process \d+ \(.*\), listens on @left-\d+",
    "connection": r"process \d+ \(.*\), connected to store \(port \d+\)",
    "memory": r"shared memory /dev/shm/psm_\w+",
    "file": r"file left in \$TMPDIR",
    "directory": r"directory left in \$TMPDIR",
    "socket": r"unix socket left in \$TMPDIR",
}


@pytest.mark.parametrize("kind", SAID)
def test_what_is_left_is_named_and_fails_the_run(site: Site, kind: str) -> None:
    site.write(STORE)
    site.write(LEAVING, "leaving.py")
    code, out, err = site.run("--fail-on-leak", "--", sys.executable, "leaving.py", kind, "leaves")
    if kind == "memory":
        (Path("/dev/shm") / out.strip().lstrip("/")).unlink()
    assert code == 1, err
    told = [line for line in err.splitlines() if "left behind" in line]
    assert len(told) == 1, err
    assert re.search(rf"^error: left behind: {SAID[kind]}", told[0]), told
    assert site.left_after(2) == []
    code, _, err = site.run("--fail-on-leak", "--", sys.executable, "leaving.py", kind, "clean")
    assert (code, "left behind" in err) == (0, False), err


def test_what_a_service_leaves_is_named_too(site: Site) -> None:
    site.write('[services.web]\ncommand = ["sh", "-c", "touch $TMPDIR/by-web; echo up; exec sleep 1000"]\n'
               'ready = { log = "up" }\n')  # fmt: skip
    code, _, err = site.run("--fail-on-leak", "--", "true")
    assert code == 1
    assert "left behind: file by-web in $TMPDIR" in err
    assert site.run("--", "true")[0] == 0
