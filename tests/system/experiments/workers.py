"""pytest-xdist workers that have a cluster each, at the same time and on the same nova.toml."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.novad.testing.running import Site as Project
from tests.novad.testing.running import pytest_argv
from tests.system import oracle
from tests.system.board import experiment, quantile, require
from tests.system.site import Site

WORKERS = 4
ROUND_S = 120.0

# Keeps the words that it is told, and answers `NAMESPACE word word ...`. What speaks to `front` reaches `store` by it.
STORE = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port, behind, words = int(os.environ["PORT"]), os.environ.get("BEHIND"), []
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        client = server.accept()[0]
        with client:
            word = client.makefile().readline()
            if not word:
                continue
            if behind:
                with socket.create_connection(("127.0.0.1", int(behind))) as store:
                    store.sendall(word.encode())
                    answer = store.makefile().read()
            else:
                words += word.split()
                answer = " ".join([os.environ["SPACE"], *words])
            client.sendall(answer.encode())
"""
CLUSTER = """
[defaults]
ready_after = "50ms"
[services.store]
command = ["python3", "store.py"]
ports = { tcp = FIRST }
env = { PORT = "${port.tcp}", SPACE = "${namespace}" }
ready = { tcp = "tcp" }
[services.front]
command = ["python3", "store.py"]
ports = { tcp = SECOND }
env = { PORT = "${port.tcp}", BEHIND = "${services.store.port.tcp}", SPACE = "${namespace}" }
after = ["store"]
ready = { tcp = "tcp" }
"""
TESTS = """
import os, socket, subprocess

WORKER = os.environ["PYTEST_XDIST_WORKER"]

def tell(port, word):
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(word.encode() + b"\\n")
        return client.makefile().read().split()

def meet(*words):
    with open("arrived", "w") as pipe:
        pipe.write(" ".join([WORKER, *map(str, words)]) + "\\n")
    go = os.open("go-" + WORKER, os.O_RDONLY)
    os.read(go, 1)
    os.close(go)

def test_of_this_worker(nova):
    front, store = nova.port("front"), nova.port("store")
    meet(nova.namespace, front, store)
    tell(front, "word-of-" + WORKER)
    LEAVE
    meet()
    assert tell(front, "") == tell(store, "") == [nova.namespace, "word-of-" + WORKER]
"""
# A worker that ends early is not waited for.
TOLD = """
import os

def pytest_sessionfinish():
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        with open("arrived", "w") as pipe:
            pipe.write(worker + " ended\\n")
"""
LEAVE = 'subprocess.Popen(["sleep", "600"], start_new_session=True)'


@experiment(
    "C01",
    "four xdist workers, each with its own cluster",
    short={"rounds": 1},
    full={"rounds": 50},
    controls={
        "one cluster for all": {"mode": "shared"},
        "ports that are insisted on": {"insists": True},
        "a test that leaves a process": {"leave": LEAVE},
    },
)
def clusters_of_workers(
    site: Site, rounds: int, mode: str = "worker", insists: bool = False, leave: str = "pass"
) -> str:
    """All live at once; each answers on ports of its own, hears its own worker only, and leaves nothing."""
    runtime = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    project = Project(site.folder, runtime)
    try:
        first, second = ('"27801!"', '"27802!"') if insists else ("27801", "27802")
        project.write(CLUSTER.replace("FIRST", first).replace("SECOND", second), fast=False)
        project.write(TOLD, "conftest.py")
        project.write(STORE, "store.py")
        project.write(TESTS.replace("LEAVE", leave), "test_it.py")
        for name in ("arrived", *(f"go-gw{number}" for number in range(WORKERS))):
            os.mkfifo(site.folder / name)
        took_s = [_round(project, number, mode) for number in range(rounds)]
    finally:
        project.end()
        shutil.rmtree(runtime)
    return (
        f"{rounds} rounds of {WORKERS}: 0 clashes, 0 crossed messages, 0 left; "
        f"p50 {quantile(took_s, 0.5):.1f} s max {max(took_s):.1f} s"
    )


def _round(project: Project, number: int, mode: str) -> float:
    began_s = time.monotonic()
    arrived = os.open(project.folder / "arrived", os.O_RDWR | os.O_NONBLOCK)
    gates = [os.open(project.folder / f"go-gw{worker}", os.O_RDWR) for worker in range(WORKERS)]
    with (project.folder / "said").open("w+") as said:
        runner = subprocess.Popen(
            pytest_argv("-q", "-n", str(WORKERS), "--dist", "each", f"--novad={mode}"), cwd=project.folder,
            env=project.environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            arrivals = _meeting(runner, arrived, f"round {number}: all clusters are up")
            _judge(project, arrivals, f"round {number}")
            _open(gates)
            _meeting(runner, arrived, f"round {number}: every word is told")
            _open(gates)
            code = runner.wait(ROUND_S)
            said.seek(0)
            require(code == 0, f"round {number}: pytest passes: {said.read()[-2000:]}")
        finally:
            for fd in (arrived, *gates):
                os.close(fd)
            runner.kill()
            runner.wait()
    left = [seen.command for seen in project.left_after(2.0)]
    require(not left, f"round {number}: nothing is alive: {left}")
    files = [path.name for path in (project.folder / ".novad").iterdir() if path.name != ".gitignore"]
    files += [path.name for path in (project.runtime / "novad").iterdir() if path.name != "choosing-ports"]
    require(not files, f"round {number}: no file is left: {files}")
    return time.monotonic() - began_s


def _meeting(runner: subprocess.Popen[bytes], arrived: int, what: str) -> list[list[str]]:
    """The words of every worker, when all have come."""
    pidfd = os.pidfd_open(runner.pid)
    until_s, text = time.monotonic() + ROUND_S, b""
    try:
        while text.count(b"\n") < WORKERS:
            ready = select.select([arrived, pidfd], [], [], max(0.0, until_s - time.monotonic()))[0]
            require(arrived in ready, f"{what}: came {text.decode().split()}")
            text += os.read(arrived, 65536)
            require(b" ended" not in text, f"{what}: came {text.decode().split()}")
    finally:
        os.close(pidfd)
    return [line.split() for line in text.decode().splitlines()]


def _open(gates: list[int]) -> None:
    for gate in gates:
        os.write(gate, b"x")


def _judge(project: Project, arrivals: list[list[str]], when: str) -> None:
    """One daemon a worker; each port is listened on once, by a process of the namespace that has it."""
    spaces = {space for _, space, *_ in arrivals}
    require(len(spaces) == WORKERS, f"{when}: a namespace for each worker: {arrivals}")
    require(len(project.daemons()) == WORKERS, f"{when}: {len(project.daemons())} daemons")
    owners = {space: {seen.pid for seen in oracle.processes(f"SPACE={space}")} for space in spaces}
    for _, space, *ports in arrivals:
        for port in ports:
            found = oracle.listeners(int(port))
            require(
                len(found) == 1 and found[0] in owners[space], f"{when}: {port} of {space} belongs to {found}"
            )
