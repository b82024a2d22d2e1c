"""The attached `up` and the shell on a real pty."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pexpect

from tests.system.client import Project, marked_processes

TALKING = """
[services.api]
command = ["sh", "-c", "echo up and talking; while read line; do :; done < /dev/zero; exec sleep 1000"]
ready = { log = "talking" }
[services.db]
command = ["sh", "-c", "echo up; exec sleep 1000"]
ready = { log = "up" }
"""
SLEEPING = TALKING.replace("while read line; do :; done < /dev/zero; ", "")


def test_an_owner_shows_progress_then_the_log_and_ctrl_c_stops_everything(
    project: Project, tmp_path: Path
) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2 processes")
    up.expect("2 ready")
    up.expect("up and talking")
    up.expect("2/2 ready")
    up.sendintr()
    up.expect(r"stopping 2 services \(Ctrl-C again kills\)")
    up.expect(pexpect.EOF)
    up.close()
    assert up.exitstatus == 130
    assert marked_processes(tmp_path) == []
    assert not project.is_up()


def test_up_has_begun_to_tell_when_it_finds_an_error_and_tells_it_on_a_line_of_its_own(project: Project) -> None:
    project.write("[services.api]\ncomand = 'x'\n")
    done = project.novad("up", "-d")
    assert done.returncode == 78
    assert done.stderr.splitlines()[:2] == [
        "nova.toml · logs in .novad/logs",
        "error: unknown key `comand` in [services.api]",
    ]


def test_a_second_ctrl_c_kills_what_does_not_want_to_end(project: Project, tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    project.write(f'[services.api]\ncommand = ["sh", "-c", "{stubborn}"]\nready = {{ log = "ready" }}\n'
                  'stop = { timeout = "60s" }\n[services.db]\ncommand = "sleep 1000"\n')  # fmt: skip
    up = project.terminal("up")
    up.expect("2/2 ready")
    up.sendintr()
    up.expect("stopping 2 services")
    up.expect("1 ready|db stopped")
    up.sendintr()
    up.expect("killing")
    up.expect("stopped 2 processes")
    up.expect(pexpect.EOF)
    assert marked_processes(tmp_path) == []


def test_an_attached_up_detaches_at_ctrl_c_and_the_services_go_on(project: Project) -> None:
    project.write(SLEEPING)
    assert project.novad("up", "-d").returncode == 0
    pids = {item["pid"] for item in project.processes().values()}
    up = project.terminal("up")
    up.expect("Ctrl-C detaches")
    up.expect("2/2 ready")
    up.sendintr()
    up.expect("detached; 2 services still running")
    up.expect(pexpect.EOF)
    up.close()
    assert up.exitstatus == 0
    assert {item["pid"] for item in project.processes().values()} == pids


def test_an_owner_that_detaches_leaves_the_cluster_running(project: Project) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2/2 ready")
    up.send("d")
    up.expect("detached; 2 services still running")
    up.expect(pexpect.EOF)
    assert project.novad("status", "--check").returncode == 0


def test_the_cluster_ends_with_an_owner_that_is_killed(project: Project, tmp_path: Path) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2/2 ready")
    up.kill(signal.SIGKILL)
    project.until(lambda: not project.is_up())
    project.until(lambda: marked_processes(tmp_path) == [])


def test_an_owner_goes_on_when_the_daemon_is_killed_under_it(project: Project, tmp_path: Path) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2/2 ready")
    before = marked_processes(tmp_path)
    os.kill(json.loads(project.novad("status", "--json").stdout)["daemon"]["pid"], signal.SIGKILL)
    up.expect("a new one takes over what runs")
    up.expect("2/2 ready")
    assert marked_processes(tmp_path) == before
    up.kill(signal.SIGKILL)
    project.until(lambda: marked_processes(tmp_path) == [])


def test_single_keys_show_status_filter_and_run_commands(project: Project) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2/2 ready")
    up.send("s")
    up.expect("SERVICE")
    up.send("?")
    up.expect("/ filter")
    up.send(":")
    up.send("restart --no-wait db\r")
    up.expect("restarted db")
    up.send("/")
    up.send("(\r")
    up.expect("is not a regular expression")
    up.send("/")
    up.send("nothing like it\r")
    up.expect("only /nothing like it/")
    up.send("r")
    up.send("ap\t\r")
    up.expect("restarted api")


LATE = """
[services.api]
command = ["sh", "-c", "until test -e go; do sleep 0.05; done; echo at last; exec sleep 1000"]
ready = { log = "at last" }
"""


def test_keys_typed_while_services_start_are_not_echoed_and_count_once_all_is_ready(project: Project) -> None:
    project.write(LATE)
    up = project.terminal("up")
    up.expect("starting")
    up.send("zqzq?")
    # The block is repainted every 0.1 s: an echo would come before the second repaint.
    shown = ""
    for _ in range(2):
        up.expect("starting")
        shown += up.before or ""
    project.write("", "go")
    up.expect("1/1 ready")
    assert "zq" not in shown + (up.before or "")
    up.expect("/ filter")


def test_d_detaches_while_services_start(project: Project) -> None:
    project.write(LATE)
    up = project.terminal("up")
    up.expect("starting")
    up.send("d")
    up.expect("detached; 1 service still running")
    up.expect(pexpect.EOF)
    project.write("", "go")
    assert project.novad("wait", "api", "--timeout", "20").returncode == 0


def test_the_terminal_is_as_it_was_after_up(project: Project) -> None:
    project.write(SLEEPING)
    shell = pexpect.spawn(
        "/bin/sh", cwd=str(project.directory), env=project.environ, encoding="utf-8", timeout=20
    )
    import sys

    shell.sendline("stty -a | grep -o -- '-*icanon'; echo before")
    shell.expect("icanon\r\nbefore")
    shell.sendline(f"{sys.executable} -m novad up")
    shell.expect("2/2 ready")
    shell.sendintr()
    shell.expect("stopped 2 processes")
    shell.sendline("stty -a | grep -o -- '-*icanon'; echo after")
    shell.expect(r"[^-]icanon\r\nafter")
    shell.close(force=True)


def test_a_watched_status_repaints_at_each_change_and_q_leaves(project: Project) -> None:
    project.write(SLEEPING)
    assert project.novad("up", "-d").returncode == 0
    watched = project.terminal("status", "-w", "60s")
    watched.expect("2 ready")
    watched.expect("q quits")
    project.novad("stop", "db")
    watched.expect("1 ready · 1 stopped")
    watched.send("q")
    watched.expect(pexpect.EOF)
    watched.close()
    assert watched.exitstatus == 0


def test_a_dumb_terminal_gets_no_escape_sequence(project: Project) -> None:
    project.write(SLEEPING)
    project.environ |= {"TERM": "dumb"}
    up = project.terminal("up")
    up.expect("2 ready")
    told = up.before
    watch = project.terminal("status", "-w")
    watch.expect(pexpect.EOF)
    assert watch.wait() == 2
    assert "needs a terminal whose cursor can be moved" in watch.before
    up.sendintr()
    up.expect(pexpect.EOF)
    assert "\x1b" not in told + watch.before + up.before


def test_the_shell_completes_runs_and_survives_the_end_of_the_daemon(project: Project) -> None:
    project.write("[novad]\nname = 'shop'\n" + SLEEPING)
    assert project.novad("up", "-d").returncode == 0
    shell = project.terminal()
    shell.expect("Tab completes")
    shell.expect("shop>")
    shell.send("stat\t")
    shell.expect("Show the services|status")
    shell.send("\x15status\r")
    shell.expect("SERVICE")
    shell.expect("shop>")
    shell.send("statsu\r")
    shell.expect("did you mean `status`")
    shell.send("status --json | wc -l\r")
    shell.expect(r"2004l1\r\n")
    shell.send("restart \t")
    shell.expect("ready")
    shell.send("\x15down\r")
    shell.expect(r"\(down\)")
    shell.send("status\r")
    shell.expect("not running")
    shell.send("\x03")
    shell.send("\x04")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_a_watched_line_of_the_shell_clears_the_screen_only_for_what_is_there_to_show(project: Project) -> None:
    project.write("[novad]\nname = 'shop'\n" + SLEEPING)
    assert project.novad("up", "-d").returncode == 0
    shell = project.terminal(columns=80)
    shell.expect("shop>")
    shell.send("watch status\r")
    shell.expect(r"\x1b\[H\x1b\[2J.*SERVICE.*\x1b\[32m.*every 2 s: status")
    shell.send("q")
    shell.expect("shop>")
    shell.send("watch -v wait db --for stopped\r")
    shell.expect("→ wait")
    before = shell.before or ""
    shell.sendintr()
    shell.expect("shop>")
    assert "\x1b[2J" not in before + (shell.before or "")


def test_f2_switches_on_again_what_set_follow_chose(project: Project) -> None:
    talk = """sh -c 'while :; do echo this is $NOVAD_SERVICE; sleep 0.1; done'"""
    project.write(f'[services]\napi = """{talk}"""\ndb = """{talk}"""\n[novad]\nname = "shop"\n')
    assert project.novad("up", "-d").returncode == 0
    shell = project.terminal()
    shell.expect("shop>")
    shell.send("set follow db\r")
    shell.expect("this is db")
    shell.send("\x1bOQ\x1bOQ")
    shown = ""
    for _ in range(20):
        shell.expect("this is db")
        shown += shell.before or ""
    assert "this is api" not in shown


def test_children_cannot_reach_the_terminal_with_escapes(project: Project) -> None:
    project.write("""
[services.api]
command = ["printf", '\\033]0;owned\\007\\033[2Jgone\\377\\n']
oneshot = true
""")
    project.novad("up", "-d")
    shown = project.terminal("logs", "api")
    shown.expect("gone")
    shown.expect(pexpect.EOF)
    text = shown.before if isinstance(shown.before, str) else ""
    assert "\x1b]" not in text
    kept = (project.directory / ".novad/logs/api.log").read_bytes()
    assert b"\x1b]0;owned\x07\x1b[2Jgone\xff\n" in kept


def test_a_crash_that_is_restarted_at_once_leaves_a_line_in_the_attached_up(project: Project) -> None:
    project.write(SLEEPING)
    up = project.terminal("up")
    up.expect("2/2 ready")
    os.kill(project.processes()["api"]["pid"], signal.SIGSEGV)
    up.expect(r"api crashed: killed by SIGSEGV.*novad why api")
    assert project.processes()["api"]["restarts"] == 1
