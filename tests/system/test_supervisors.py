"""A service under another supervisor than novad, unchanged: ready, drained by TERM, restarted after a kill.

Runs where that supervisor is installed, and says so where it is not. `NOVA_TEST_SUPERVISORD` names a supervisord
that is not in PATH.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import port_for_a_restart
from tests.system import oracle

SERVICES = Path(__file__).parents[2] / "services"
MODULE = """
import os
from nova import green, manager
class Web(manager.WebManager):
    def wsgi_app(self):
        return self.answer
    def answer(self, environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            print("slow began", flush=True)
            green.sleep(0.5)
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
"""
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
[program:web]
command={command}
directory={folder}
environment=PYTHONPATH="{path}",NOVA_STATE_PATH="{folder}/state"
autorestart=true
startsecs=0
stopwaitsecs=12
redirect_stderr=true
stdout_logfile={folder}/web.log
"""


def ask(port: int, path: str = "/") -> int:
    """The pid that answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return int(connection.getresponse().read())
    finally:
        connection.close()


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.fixture
def port() -> int:
    return port_for_a_restart()


def path_of(program: str) -> str:
    """Skips the test where the program is not installed."""
    found = os.environ.get(f"NOVA_TEST_{program.upper().replace('-', '_')}") or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


class Supervised:
    """A supervisor with the service of MODULE under it; `stop` words end both, where TERM does not."""

    def __init__(self, folder: Path, port: int, words: list[str], stop: list[str] | None = None) -> None:
        self.log = folder / "web.log"
        self.port = port
        self._stop = stop
        self._running = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ask(self, path: str = "/") -> int:
        return ask(self.port, path)

    def stop(self) -> int:
        """Have the service stopped as an administrator would; the supervisor's exit code."""
        if self._stop is None:
            self._running.terminate()
        else:
            subprocess.run(self._stop, check=True)
        return self._running.wait(20)

    def end(self) -> None:
        self._running.kill()
        self._running.wait()


@pytest.fixture
def supervise(tmp_path: Path, port: int) -> Iterator[Callable[..., Supervised]]:
    """`supervise(words, stop)`: what answers, once it does; nothing of it is left at the end."""
    started: list[Supervised] = []

    def start(*words: str, stop: list[str] | None = None) -> Supervised:
        started.append(Supervised(tmp_path, port, list(words), stop))
        until(started[-1].ask)
        return started[-1]

    (tmp_path / "web.py").write_text(MODULE)
    yield start
    for each in started:
        each.end()
    for left in oracle.processes(f"{tmp_path}/"):
        os.kill(left.pid, signal.SIGKILL)


def command(port: int) -> str:
    return f"{sys.executable} -m nova nova-web --web_manager=web.Web --web_listen_port={port}"


def directory(folder: Path, port: int) -> Path:
    """A service directory as daemontools, runit and s6 want one."""
    made = folder / "web"
    made.mkdir()
    (made / "run").write_text(
        f"#!/bin/sh\nexec >>{folder}/web.log 2>&1\nexport PYTHONPATH={SERVICES}:{folder}\n"
        f"export NOVA_STATE_PATH={folder}/state NOTIFY_FD=$READY_ON\nexec {command(port)}\n"
    )
    (made / "run").chmod(0o755)
    return made


def check(supervised: Supervised) -> None:
    """Killed, it is restarted; stopped, it first answers what has begun."""
    first = supervised.ask()
    os.kill(first, signal.SIGKILL)
    until(lambda: supervised.ask() != first)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(supervised.ask("/slow")))
    asking.start()
    until(lambda: "slow began" in supervised.log.read_text())
    assert supervised.stop() == 0
    asking.join()
    assert len(answers) == 1
    assert supervised.log.read_text().rstrip().endswith("ends with 0")


def test_supervisord_restarts_it_after_a_kill_and_its_stop_drains(
    supervise: Callable[..., Supervised], port: int, tmp_path: Path
) -> None:
    program = path_of("supervisord")
    config = tmp_path / "supervisord.conf"
    config.write_text(SUPERVISORD.format(folder=tmp_path, command=command(port), path=f"{SERVICES}:{tmp_path}"))
    check(supervise(program, "-c", str(config)))


def test_runit_restarts_it_after_a_kill_and_its_stop_drains(
    supervise: Callable[..., Supervised], port: int, tmp_path: Path
) -> None:
    program = path_of("runsv")
    check(supervise(program, str(directory(tmp_path, port))))


def test_daemontools_restarts_it_after_a_kill_and_its_stop_drains(
    supervise: Callable[..., Supervised], port: int, tmp_path: Path
) -> None:
    program, svc = path_of("supervise"), path_of("svc")
    made = directory(tmp_path, port)
    check(supervise(program, str(made), stop=[svc, "-dx", str(made)]))


def test_s6_hears_that_it_is_ready_restarts_it_after_a_kill_and_its_stop_drains(
    supervise: Callable[..., Supervised], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, wait = path_of("s6-supervise"), path_of("s6-svwait")
    made = directory(tmp_path, port)
    (made / "notification-fd").write_text("3\n")
    monkeypatch.setenv("READY_ON", "3")
    supervised = supervise(program, str(made))
    subprocess.run([wait, "-U", "-t", "20000", str(made)], check=True)
    check(supervised)
