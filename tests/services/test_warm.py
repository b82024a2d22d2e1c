"""What is preloaded before services are forked: caches, and nothing that two processes cannot share."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PRELOAD = tomllib.loads((ROOT / "nova.toml").read_text())["novad"]["preload"]

# As the template does it: the listed modules and functions in their order, then the hub is dropped.
BOOT = """
import gc, importlib, json, os, sys
def look():
    import greenlet
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor that listed them
    alive = [item for item in gc.get_objects() if isinstance(item, greenlet.greenlet) and item.gr_frame is not None]
    return {"fds": fds, "threads": len(os.listdir("/proc/self/task")), "greenlets": len(alive)}
def load(items):
    for item in items:
        name, _, function = item.partition(":")
        found = importlib.import_module(name)
        if function:
            getattr(found, function)()
"""
LOOK = """
*others, last = json.loads(sys.argv[1])
load(others)
import eventlet.hubs
from nova import flags
from nova.db import session
eventlet.hubs.use_hub(); gc.collect()
before, values = look(), flags.FLAGS.dump()
load([last])
eventlet.hubs.use_hub(); gc.collect()
print(json.dumps({
    "before": before, "after": look(), "same flags": flags.FLAGS.dump() == values, "databases": len(session._databases),
}))
"""
TWO = """
load(json.loads(sys.argv[1]))
import eventlet.hubs
eventlet.hubs.use_hub(); gc.collect(); gc.freeze()
for _ in range(2):
    reader, writer = os.pipe()
    if os.fork() == 0:
        import random, ssl, uuid
        from nova.db import session
        session.FLAGS(["x", f"--sql_connection=sqlite:///{sys.argv[2]}/{os.getpid()}.sqlite"])
        session.sync()
        found = [random.random(), str(uuid.uuid4()), ssl.RAND_bytes(8).hex()]
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    print(os.read(reader, 4096).decode(), flush=True)
"""


def run(program: str, *words: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", BOOT + program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_warming_up_leaves_no_database_descriptor_thread_or_greenlet() -> None:
    assert PRELOAD[-1] == "nova.warm:database"
    (found,) = run(LOOK, json.dumps(PRELOAD))
    assert found["after"] == found["before"]
    assert found["after"]["threads"] == 1
    assert found["same flags"]
    assert found["databases"] == 0


def test_the_look_sees_what_is_left() -> None:
    found = run("load(['nova.green:patch'])\nkept = os.pipe()\nprint(json.dumps(look()))")
    assert any(target.startswith("pipe:") and int(fd) > 2 for fd, target in found[0]["fds"].items())


def test_services_forked_after_it_differ_in_what_must_differ(tmp_path: Path) -> None:
    first, second = run(TWO, json.dumps(PRELOAD), str(tmp_path))
    assert all(mine != theirs for mine, theirs in zip(first, second, strict=True))
    assert len(list(tmp_path.glob("*.sqlite"))) == 2
