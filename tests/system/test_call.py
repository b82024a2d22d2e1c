"""`novad call` with a command that shows what it was given, and with Nova's own."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.system.client import Project

SHOW = """
import json, os, sys, time
if "sleep" in sys.argv:
    time.sleep(60)
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "mark": os.environ.get("MARK"), "url": os.environ.get("WEB_URL")}))
sys.exit(5 if "fail" in sys.argv else 0)
"""  # noqa: E501


@pytest.fixture
def calling(project: Project) -> Project:
    project.write(SHOW, "show.py")
    project.write(
        f'[novad]\ncall = ["{sys.executable}", "show.py"]\n[env]\nMARK = "of the cluster"\n'
        '[services.web]\ncommand = "sleep 1000"\nports = { http = "auto" }\nurl = "http://127.0.0.1:${port}/"\n'
    )
    assert project.novad("up", "-d").returncode == 0
    return project


def test_the_command_gets_the_call_in_the_environment_of_the_cluster(calling: Project) -> None:
    done = calling.novad("call", "web", "ping", "n:=3", "to=all of you", "--timeout", "2s", "--fanout")
    assert done.returncode == 0, done.stderr
    port = calling.processes()["web"]["ports"]["http"]
    assert json.loads(done.stdout) == {
        "argv": ["web", "ping", "n:=3", "to=all of you", "--fanout", "--timeout", "2"],
        "cwd": str(calling.directory), "mark": "of the cluster", "url": f"http://127.0.0.1:{port}/",
    }  # fmt: skip


def test_what_was_called_is_completed_the_next_time(calling: Project) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        calling.environ |= {
            "_NOVAD_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        found = calling.novad().stdout
        del calling.environ["_NOVAD_COMPLETE"]
        return [row.partition(",")[2] for row in found.splitlines() if row]

    assert completed("novad call ") == ["web"]
    assert completed("novad call web p") == []
    assert calling.novad("call", "bus", "ping", "--full").stdout.count("--full") == 1
    assert calling.novad("call", "web", "pong").returncode == 0
    assert calling.novad("call", "web", "fail").returncode == 5
    assert completed("novad call ") == ["web", "bus"]
    assert completed("novad call bus ") == ["ping"]
    assert completed("novad call web ") == ["pong"]


def test_the_exit_code_is_the_commands_own(calling: Project) -> None:
    assert calling.novad("call", "web", "fail").returncode == 5


def test_a_command_that_ignores_its_timeout_is_ended_with_124(
    calling: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = time.monotonic()
    assert calling.novad("call", "web", "sleep", "--timeout", "100ms").returncode == 124
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize("word", ["plain", "=x", "n:=[1", "a b=c"])
def test_a_value_that_is_none_is_refused_before_anything_is_called(calling: Project, word: str) -> None:
    done = calling.novad("call", "web", "ping", word)
    assert done.returncode == 2
    assert f"`{word}`" in done.stderr


def test_without_a_command_in_nova_toml_it_says_what_to_write(project: Project) -> None:
    project.write('[services]\nweb = "sleep 1000"\n')
    assert project.novad("call", "web", "ping").returncode == 3
    assert project.novad("up", "-d").returncode == 0
    done = project.novad("call", "web", "ping")
    assert done.returncode == 2
    assert 'call = ["nova-manage", "rpc"]' in done.stderr


def test_nova_manage_answers_over_the_clusters_bus(project: Project) -> None:
    nova = Path(sys.executable).parent / "nova-manage"
    assert shutil.which(str(nova))
    binaries = nova.parent
    project.write(f"""
[novad]
call = ["{nova}", "rpc"]
[env]
NOVA_STATE_PATH = "${{dir}}/state"
NOVA_BROKER = "amqp://127.0.0.1:${{services.broker.port.amqp}}/"
NOVA_BROKER_PASSWORD_FILE = "${{dir}}/state/secret"
[services.broker]
command = ["{binaries}/nova-broker", "--port", "${{port.amqp}}"]
ports = {{ amqp = "auto" }}
ready = {{ notify = true }}
[services.scheduler]
command = "{binaries}/nova-scheduler"
after = ["broker"]
ready = {{ notify = true }}
""")
    up = project.novad("up", "-d")
    assert up.returncode == 0, up.stderr
    done = project.novad("call", "scheduler", "place_what_waits", "--timeout", "10s")
    assert (done.returncode, done.stdout) == (0, "null\n"), done.stderr
    done = project.novad("call", "scheduler", "no_such_method", "--timeout", "5s")
    assert done.returncode == 1
    assert "no_such_method" in done.stderr
    done = project.novad("call", "nobody", "ping", "--timeout", "5s")
    assert done.returncode == 1
    assert "nobody listens on nobody" in done.stderr
