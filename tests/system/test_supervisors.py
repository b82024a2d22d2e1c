"""A service under another supervisor than novad, unchanged: ready, drained by TERM, restarted after a kill.

Runs where that supervisor is installed, and says so where it is not.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def supervisord(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    program = os.environ.get("NOVA_TEST_SUPERVISORD") or shutil.which("supervisord")
    if program is None:
        pytest.skip("supervisord is not installed")
    (tmp_path / "web.py").write_text(MODULE)
    services = Path(__file__).parents[2] / "services"
    command = f"{sys.executable} -m nova nova-web --web_manager=web.Web --web_listen_port={port}"
    config = tmp_path / "supervisord.conf"
    config.write_text(SUPERVISORD.format(folder=tmp_path, command=command, path=f"{services}:{tmp_path}"))
    running = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ask(port))
        yield running
    finally:
        running.terminate()
        running.wait(20)


def test_supervisord_restarts_it_after_a_kill_and_its_stop_drains(
    supervisord: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    first = ask(port)
    os.kill(first, signal.SIGKILL)
    until(lambda: ask(port) != first)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(port, "/slow")))
    asking.start()
    log = tmp_path / "web.log"
    until(lambda: "slow began" in log.read_text())
    supervisord.terminate()
    assert supervisord.wait(20) == 0
    asking.join()
    assert len(answers) == 1
    assert log.read_text().rstrip().endswith("ends with 0")
