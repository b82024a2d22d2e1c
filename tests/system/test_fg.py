"""`novad fg` on a real pty and a real daemon: the service in the foreground, and back under supervision."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.system.client import DEADLINE_S, Project, marked_processes

TWO = """
[services.api]
command = ["sh", "-c", "echo serving as $NOVAD_SERVICE; exec sleep 1000"]
ready = { log = "serving" }
[services.web]
command = "sleep 1000"
after = ["api"]
"""
SCRIPT = """
import sys, time
print("hello", *sys.argv[1:], flush=True)
if "--break" in sys.argv:
    breakpoint()
name = input("who? ") if sys.stdin.isatty() else "nobody"
print("bye", name, flush=True)
sys.exit(7)
"""


def row(project: Project, name: str) -> dict[str, Any]:
    return project.processes()[name]


def is_on_terminal(project: Project, name: str) -> bool:
    item = row(project, name)
    return (item["note"] or "").startswith("fg on ") and item["state"] in ("starting", "ready")


@pytest.fixture
def two(project: Project) -> Project:
    project.write(TWO)
    assert project.novad("up", "-d").returncode == 0
    return project


@pytest.fixture
def script(project: Project) -> Project:
    """One Python service that asks a question where it has a terminal; supervised it sleeps."""
    project.write(SCRIPT, "app.py")
    project.write(
        f'[services.app]\ncommand = ["{sys.executable}", "app.py"]\nautostart = false\nrestart = "no"\n'
    )
    assert project.novad("up", "-d").returncode == 0
    return project


def test_a_service_runs_here_while_its_dependents_stay_up_and_is_supervised_again_afterwards(
    two: Project,
) -> None:
    before = two.processes()
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    during = two.processes()
    assert during["api"]["pid"] != before["api"]["pid"]
    assert during["web"]["pid"] == before["web"]["pid"]
    assert "◆ fg" in two.novad("status").stdout
    assert os.readlink(f"/proc/{during['api']['pid']}/fd/0").startswith("/dev/pts/")
    fg.sendintr()
    fg.expect("killed by SIGINT; supervised again")
    fg.expect(pexpect.EOF)
    fg.close()
    assert fg.exitstatus == 128 + signal.SIGINT
    after = two.until(lambda: row(two, "api")["state"] == "ready" and two.processes())
    assert after["api"]["note"] is None
    assert after["api"]["pid"] not in (before["api"]["pid"], during["api"]["pid"])
    assert after["web"]["pid"] == before["web"]["pid"]
    assert "no process has crashed" in two.novad("why").stdout, "its end was no crash"


def test_the_command_is_interactive_takes_arguments_and_its_exit_code_is_the_answer(script: Project) -> None:
    fg = script.terminal("fg", "app", "--", "one", "--two")
    fg.expect("hello one --two")
    fg.expect(r"who\? ")
    fg.sendline("world")
    fg.expect("bye world")
    fg.expect("app: exit 7; it stays down")
    fg.expect(pexpect.EOF)
    fg.close()
    assert fg.exitstatus == 7
    assert row(script, "app")["state"] == "stopped"


def test_a_breakpoint_can_be_used(script: Project) -> None:
    fg = script.terminal("fg", "app", "--", "--break")
    fg.expect(r"\(Pdb\) ")
    fg.sendline("p 40 + 2")
    fg.expect("42")
    fg.sendline("c")
    fg.expect(r"who\? ")
    fg.sendline("x")
    fg.expect("exit 7")


def test_pdb_opens_where_the_program_fails(project: Project) -> None:
    project.write("value = 41\nraise RuntimeError(value)\n", "app.py")
    project.write(f'[services.app]\ncommand = ["{sys.executable}", "-u", "app.py"]\nautostart = false\n')
    assert project.novad("up", "-d").returncode == 0
    fg = project.terminal("fg", "app", "--pdb")
    fg.expect("RuntimeError: 41")
    fg.expect(r"\(Pdb\) ")
    fg.sendline("p value + 1")
    fg.expect("42")
    fg.sendline("q")
    fg.sendline("q")
    fg.expect(pexpect.EOF)


def test_pdb_of_something_else_is_refused_before_anything_is_stopped(two: Project) -> None:
    before = row(two, "api")["pid"]
    done = two.novad("fg", "api", "--pdb")
    assert done.returncode == 2
    assert "sh is not a Python program" in done.stderr
    assert row(two, "api")["pid"] == before


def test_with_log_the_output_is_on_the_terminal_and_in_the_log(script: Project) -> None:
    fg = script.terminal("fg", "app", "--log")
    fg.expect(r"who\? ")
    fg.sendline("logged")
    fg.expect("bye logged")
    fg.expect(pexpect.EOF)
    fg.close()
    assert fg.exitstatus == 7
    stored = script.novad("logs", "app").stdout
    assert "hello" in stored
    assert "bye logged" in stored
    assert "its output goes there" not in stored


def test_what_is_ready_by_its_log_is_ready_on_a_terminal_where_novad_cannot_read_it(two: Project) -> None:
    assert two.novad("stop", "web").returncode == 0
    terminal = two.terminal("fg", "api")
    terminal.expect("serving as api")
    assert two.novad("wait", "api", "--timeout", "20").returncode == 0
    assert is_on_terminal(two, "api")
    assert "nothing is wrong" in two.novad("why", "api").stdout
    assert two.novad("start", "web").returncode == 0


def test_without_a_terminal_the_output_can_be_piped(script: Project) -> None:
    done = script.novad("fg", "app", stdin="")
    assert (done.returncode, done.stdout) == (7, "hello\nbye nobody\n")
    done = script.novad("fg", "app", "--log", "--", "again", stdin="")
    assert (done.returncode, done.stdout) == (7, "hello again\nbye nobody\n")
    assert "hello again" in script.novad("logs", "app").stdout


def test_a_client_that_is_killed_gives_the_service_back(two: Project, tmp_path: Path) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    lost = row(two, "api")["pid"]
    os.kill(fg.pid, signal.SIGKILL)
    two.until(lambda: row(two, "api")["state"] == "ready" and row(two, "api")["note"] is None)
    assert row(two, "api")["pid"] != lost
    assert lost not in marked_processes(tmp_path)


def test_a_stop_elsewhere_ends_it_and_it_stays_down(two: Project) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    assert two.novad("stop", "api").returncode == 0
    fg.expect("killed by SIGTERM; it stays down")
    fg.expect(pexpect.EOF)
    assert row(two, "api")["state"] == "stopped"


def test_down_ends_it_too_and_nothing_is_left(two: Project, tmp_path: Path) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    assert two.novad("down").returncode == 0
    fg.expect("no daemon runs any more")
    fg.expect(pexpect.EOF)
    assert marked_processes(tmp_path) == []


@pytest.mark.parametrize("way", ["killed", "upgraded"])
def test_the_daemon_that_follows_leaves_it_alone_and_supervises_it_afterwards(two: Project, way: str) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    pid = row(two, "api")["pid"]
    if way == "killed":
        status = json.loads(two.novad("status", "--json").stdout)
        os.kill(status["daemon"]["pid"], signal.SIGKILL)
    else:
        assert two.novad("upgrade").returncode == 0
    assert two.until(lambda: is_on_terminal(two, "api"))
    assert row(two, "api")["pid"] == pid
    assert "is on" in two.novad("fg", "api").stderr
    fg.sendintr()
    fg.expect("supervised again")
    two.until(lambda: row(two, "api")["state"] == "ready" and row(two, "api")["pid"] != pid)
    assert row(two, "api")["note"] is None


def test_what_was_down_before_is_down_afterwards_also_for_another_daemon(script: Project) -> None:
    fg = script.terminal("fg", "app")
    fg.expect(r"who\? ")
    script.until(lambda: is_on_terminal(script, "app"))
    status = json.loads(script.novad("status", "--json").stdout)
    os.kill(status["daemon"]["pid"], signal.SIGKILL)
    script.until(lambda: is_on_terminal(script, "app"))
    fg.sendline("world")
    fg.expect("bye world")
    fg.expect(pexpect.EOF)
    script.until(lambda: row(script, "app")["state"] == "stopped")


def test_a_service_is_on_one_terminal_at_a_time(two: Project) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    done = two.novad("fg", "api")
    assert done.returncode == 1
    assert "api is on pts/" in done.stderr
    fg.sendintr()
    fg.expect(pexpect.EOF)


def test_down_and_reload_say_which_terminal_they_take_and_ask(two: Project) -> None:
    fg = two.terminal("fg", "api")
    fg.expect("serving as api")
    two.until(lambda: is_on_terminal(two, "api"))
    down = two.terminal("down")
    down.expect(r"this ends what is on a terminal \(novad fg\): api \(pts/\d+\)")
    down.expect(r"Stop everything\? \[Y/n\]")
    down.sendline("n")
    down.expect("nothing was stopped")
    down.expect(pexpect.EOF)
    assert is_on_terminal(two, "api")
    two.write(TWO.replace("serving as", "serving  as"))
    reload = two.terminal("reload")
    reload.expect(r"this ends what is on a terminal \(novad fg\): api \(pts/\d+\)")
    reload.expect(r"Apply\? \[Y/n\]")
    reload.sendline("n")
    reload.expect(pexpect.EOF)
    assert is_on_terminal(two, "api")
    done = two.novad("down")  # a script is not asked
    assert done.returncode == 0
    assert "api (pts/" in done.stderr
    fg.expect(pexpect.EOF)


def test_a_listening_socket_is_passed_on(project: Project) -> None:
    code = (
        "import os, socket; s = socket.socket(fileno=3); print(os.environ['LISTEN_FDNAMES'], s.getsockname()[1])"
    )
    project.write(
        f'[services.api]\ncommand = ["{sys.executable}", "-c", "{code}"]\n'
        'ports = { http = "auto" }\nlisten = true\nautostart = false\n'
    )
    assert project.novad("up", "-d").returncode == 0
    done = project.novad("fg", "api", stdin="")
    assert done.stdout == f"http {row(project, 'api')['ports']['http']}\n", done.stderr


def test_a_command_that_does_not_exist_is_127(project: Project) -> None:
    project.write('[services.api]\ncommand = "no-such-program"\nautostart = false\n')
    project.novad("up", "-d", "--no-wait")
    done = project.novad("fg", "api", stdin="")
    assert done.returncode == 127
    assert "no-such-program: no such file or directory" in done.stderr


def test_ctrl_z_gives_the_prompt_back_and_the_shells_fg_goes_on(script: Project) -> None:
    shell = pexpect.spawn(
        "bash", ["--norc", "--noediting", "-i"], cwd=str(script.directory), encoding="utf-8", timeout=DEADLINE_S,
        env=script.environ | {"PS1": "prompt> ", "HISTFILE": "/dev/null"},
    )  # fmt: skip
    try:
        shell.expect("prompt> ")
        shell.sendline(f"{sys.executable} -m novad fg app")
        shell.expect(r"who\? ")
        shell.send("\x1a")
        shell.expect("Stopped")
        shell.sendline("echo here; fg")
        shell.expect("here")
        shell.expect("novad fg app")
        shell.sendline("again")
        shell.expect("bye again")
        shell.expect("exit 7")
    finally:
        shell.close(force=True)


def test_several_replicas_are_too_many(project: Project) -> None:
    project.write('[services.api]\ncommand = "sleep 1000"\nreplicas = 2\n')
    assert project.novad("up", "-d").returncode == 0
    done = project.novad("fg", "api")
    assert done.returncode == 2
    assert done.stderr == "error: fg takes one process, not 2: api.1, api.2\nhint: novad fg api.1\n"
