"""The admin socket of a real process, and its refusals."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from pathlib import Path

import pytest
from nova import backdoor, green, metrics
from nova.testing import ServiceProcess

MODULE = """
from nova import manager
class Web(manager.WebManager):
    secret = 42
    def wsgi_app(self):
        return lambda environ, start: (start("200 OK", []), [b"x"])[1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "web.py").write_text(MODULE)
    return str(tmp_path)


def path_of(service: ServiceProcess) -> str:
    return str(service.state_path / "admin" / "nova-web.test-host")


def conversation(path: str, text: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(text.encode())
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def test_a_process_answers_questions_and_opens_a_prompt_to_its_own_user(folder: str) -> None:
    with ServiceProcess("nova-web", "--web_manager=web.Web", pythonpath=folder) as service:
        path = path_of(service.wait_ready())
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        assert backdoor.ask(path, "state") == "nova-web ready\n"
        assert backdoor.ask(path, "inflight") == ""
        assert "==== stacks" in backdoor.ask(path, "stacks")
        assert "web_manager = 'web.Web'  # command line" in backdoor.ask(path, "flags")
        assert "known: flags, inflight, metrics, stacks, state, backdoor" in backdoor.ask(path, "nonsense")
        typed = "backdoor\nservices[0].manager.secret + 1\nprint('printed')\n1/0\nexit()\n"
        answer = conversation(path, typed)
        assert ">>> 43\n" in answer
        assert ">>> printed\n" in answer
        assert "ZeroDivisionError" in answer
        assert "printed" not in service.log
        assert "a backdoor was opened" in service.log
        service.signal("TERM")
        assert service.wait() == 0
        assert not os.path.exists(path)


def test_metrics_are_in_prometheus_format_also_by_http(folder: str) -> None:
    with ServiceProcess("nova-web", "--web_manager=web.Web", pythonpath=folder) as service:
        path = path_of(service.wait_ready())
        answer = conversation(path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert 'nova_ready{service="nova-web"} 1\n' in body
        sample = re.compile(r'^[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? -?[0-9.e+-]+$')
        for line in body.splitlines():
            assert line.startswith(("# HELP ", "# TYPE ")) or sample.match(line), line
        names = {line.split()[2] for line in body.splitlines() if line.startswith("# TYPE")}
        assert {"nova_hub_lag_seconds", "process_open_fds", "nova_greenlets"} <= names
        assert conversation(path, "GET /nothing HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 404")


def test_a_socket_left_by_a_dead_process_is_replaced_and_one_in_use_is_not(folder: str) -> None:
    with ServiceProcess("nova-web", "--web_manager=web.Web", pythonpath=folder) as first:
        path = path_of(first.wait_ready())
        state = f"--state_path={first.state_path}"
        with ServiceProcess("nova-web", "--web_manager=web.Web", state, pythonpath=folder) as second:
            second.wait_ready()
            assert "no admin socket" in second.log
            assert backdoor.ask(path, "state") == "nova-web ready\n"
        first.signal("KILL")
        first.wait()
        with ServiceProcess("nova-web", "--web_manager=web.Web", state, pythonpath=folder) as third:
            third.wait_ready()
            assert backdoor.ask(path, "state") == "nova-web ready\n"


def in_greenlet(path: str, question: str) -> str:
    """`ask` waits in the kernel; the server of this process must turn meanwhile."""
    answer: str = green.tpool.execute(backdoor.ask, path, question)
    return answer


def test_a_path_longer_than_a_unix_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "x" / "socket"
    (tmp_path / ("d" * 100)).mkdir()
    admin = backdoor.Admin(str(path), {"hello": lambda: "hi\n"})
    assert admin.start()
    assert in_greenlet(str(path), "hello") == "hi\n"
    admin.close()


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    assert not backdoor.Admin(str(folder / "socket"), {}).start()
    assert "mode 0700" in caplog.text


def test_a_client_that_says_nothing_or_too_much_disturbs_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "socket")
    admin = backdoor.Admin(path, {"hello": lambda: "hi\n"})
    admin.start()
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(path)
    with contextlib.suppress(ConnectionError):  # what it did not read makes the close a reset
        assert "unknown question" in in_greenlet(path, "x" * 100_000)
    assert in_greenlet(path, "hello") == "hi\n"
    silent.close()
    admin.close()


def test_labels_are_escaped_and_calls_are_counted_by_outcome() -> None:
    calls = metrics.Calls()
    calls.note("run", "ok", 0.5)
    calls.note("run", "error", 0.25)
    calls.note("run", "ok", 0.25)
    registry = metrics.Registry()
    registry.add(lambda: calls.samples('a"b\\c\n'))
    text = registry.text()
    assert r'nova_calls_total{service="a\"b\\c\n",method="run",outcome="ok"} 2' in text
    assert r'nova_call_seconds_total{service="a\"b\\c\n",method="run"} 1' in text
    assert calls.total == 3
