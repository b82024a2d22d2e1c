"""What all services have in common: read from their source, and seen in the real processes of all of them."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
from nova import flags, lifecycle
from nova.testing import ServiceProcess

ROOT = Path(__file__).parents[2]
NOVA = ROOT / "services" / "nova"
QUEUE = ("compute", "network", "scheduler", "volume")
WEB = ("api", "objectstore")


@functools.cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted(NOVA.rglob("*.py"))]


def project() -> dict:
    return tomli.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_nothing_but_eventlet_schedules_and_nothing_daemonizes() -> None:
    forbidden = {"twisted", "daemon", "asyncio", "gevent", "multiprocessing"}
    for path, tree in sources():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not forbidden & {name.split(".")[0] for name in names}, path
    needed = {line.split(">")[0].split("=")[0].lower() for line in project()["dependencies"]}
    assert not needed & {"twisted", "python-daemon"}
    assert "eventlet" in needed


def test_no_code_is_written_for_an_event_loop() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)), path


def test_nothing_forks() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            assert not {"fork", "forkpty"} & set(names), f"{path}:{node.lineno}"


def test_every_binary_is_the_same_function_and_its_name_decides() -> None:
    scripts = project()["scripts"]
    binaries = {f"nova-{name}" for name in (*QUEUE, *WEB, "broker", "combined")}
    assert {name for name, target in scripts.items() if target == "nova.launch:main"} == binaries


def test_all_that_is_installed_is_a_released_version() -> None:
    for line in (ROOT / "scripts" / "pins.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert name, line
        assert re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version), f"{line}: not a number that is on the index"


def test_versions_with_known_faults_cannot_be_installed() -> None:
    """eventlet let requests be smuggled before 0.40.3; amqp mixed up frames of two greenlets before 5.4."""
    for name, least in (("eventlet", (0, 41, 3)), ("amqp", (5, 4, 0))):
        (line,) = [line for line in project()["dependencies"] if line.startswith(f"{name}>=")]
        wanted = tuple(int(part) for part in line.partition(">=")[2].split("."))
        assert wanted >= least, line


def test_no_timer_of_ours_is_a_signal() -> None:
    """SIGALRM is eventlet's (`hub_blocking_detection`), and whoever else wants it; deadlines are greenlets'."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("SIGALRM", "alarm", "setitimer"), f"{path}:{node.lineno}"


# Who asks what time it is, and why; for everything else the clock is the one that nobody sets.
TIME_OF_DAY = {
    "context": "when a request was made, for people",
    "metrics": "when the process began, for a scraper",
    "auth": "a signature carries its date",
    "objectstore": "objects carry their dates",
    "rpc/client": "a deadline that is read on another host",
    "rpc/server": "a deadline that was written on another host",
    "rpc/journal": "how old a row is after a restart",
    "broker": "a message carries its time, and may outlive the broker",
}


def test_nothing_that_waits_reads_a_clock_that_can_be_set() -> None:
    found = set()
    for path, tree in sources():
        called = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if called & {"time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}:
            name = str(path.relative_to(NOVA).with_suffix(""))
            found.add(next((known for known in TIME_OF_DAY if f"{name}/".startswith(f"{known}/")), name))
    assert found == set(TIME_OF_DAY)


def test_names_are_resolved_by_the_system_and_not_by_eventlets_own_resolver() -> None:
    script = (
        "from nova import green; green.patch(); import socket, sys; "
        "print('eventlet.support.greendns' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(NOVA.parent), "PYTHONWARNINGS": "ignore"}
    env.pop("EVENTLET_NO_GREENDNS", None)
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_the_supervisor_kills_later_than_the_services_give_up() -> None:
    cluster = tomli.loads((ROOT / "nova.toml").read_text())
    timeout_s = float(cluster["defaults"]["stop"]["timeout"].removesuffix("s"))
    assert timeout_s > flags.FLAGS.drain_timeout + lifecycle.CLOSE_TIMEOUT_S


@pytest.fixture
def flags_of_the_broker(tmp_path: Path):
    arguments = ["--port=0", f"--port_file={tmp_path}/port", f"--password_file={tmp_path}/password"]
    with ServiceProcess("nova-broker", *arguments, f"--state_path={tmp_path}") as broker:
        broker.wait_ready()
        port = (tmp_path / "port").read_text().strip()
        yield [f"--broker=amqp://127.0.0.1:{port}/", f"--broker_password_file={tmp_path}/password"]


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_every_service_is_ready_in_the_foreground_and_ends_clean(
    flags_of_the_broker: list[str], tmp_path: Path
) -> None:
    state = f"--state_path={tmp_path}"
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(
                ServiceProcess(
                    f"nova-{name}",
                    *flags_of_the_broker,
                    state,
                    *([f"--{name}_listen_port=0"] if name in WEB else []),
                )
            )
            for name in (*QUEUE, *WEB)
        }
        for name, service in running.items():
            service.wait_ready()
            assert f"MAINPID={service.pid}" in service.said, name
            assert children(service.pid) == "", name
            assert os.getsid(service.pid) == service.pid, "the supervisor's session, no other"
        with contextlib.closing(sqlite3.connect(tmp_path / "nova.sqlite")) as database:
            rows = database.execute("SELECT topic, state FROM services").fetchall()
        assert sorted(rows) == [(name, "ready") for name in sorted(QUEUE)]
        for service in running.values():
            service.signal("TERM")
        for name, service in running.items():
            assert service.wait() == 0, name
            service.wait_said("STOPPING=1")
            assert "Traceback" not in service.log, name
        assert not list(tmp_path.rglob("*.pid"))


def test_every_service_refuses_flags_that_it_does_not_know_or_that_are_the_supervisors() -> None:
    with contextlib.ExitStack() as stack:
        started = [
            (ServiceProcess(f"nova-{name}", word), text)
            for name in (*QUEUE, *WEB, "broker", "combined")
            for word, text in (
                ("--pidfile=/x", "your supervisor does this"),
                ("--state_pth=x", "did you mean --state_path?"),
                ("word", "a service takes flags only"),
            )
        ]
        for service, _ in started:
            stack.enter_context(service)
        for service, text in started:
            assert service.wait() == 100
            assert text in service.log
