"""`novad run` as a user and a CI system see it: the exit code, what is said, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.novad.testing.running import Site

TWO = """
[env]
SHARED = "for everybody"
[services.web]
command = ["sleep", "1000"]
ports = { http = 8774, admin = "auto" }
env = { OWN = "only mine" }
[services.db]
command = ["sleep", "1000"]
"""
# Ignores TERM, and so does what it leaves behind in another session.
STUBBORN = """
[services.web]
command = ["sh", "-c", "trap '' TERM; setsid sh -c 'trap \\"\\" TERM; sleep 1000' & sleep 1000"]
[services.db]
command = ["sleep", "1000"]
"""
SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
# Says that it runs, and has a child of its own.
LONG = ["sh", "-c", "echo running; setsid sleep 1000 & sleep 1000"]


def test_the_command_gets_addresses_and_nothing_is_left(site: Site) -> None:
    site.write(TWO)
    code, out, err = site.run("--", *SHOW)
    assert code == 0, err
    env = json.loads(out)
    assert env["SHARED"] == "for everybody"
    assert "OWN" not in env
    assert env["WEB_URL"] == f"http://127.0.0.1:{env['WEB_PORT_HTTP']}/"
    assert env["WEB_PORT_HTTP"] not in ("8774", env["WEB_PORT_ADMIN"])
    assert env["NOVAD_SOCKET"].startswith(str(site.runtime))
    assert site.left_after(2) == []
    assert [path.name for path in (site.folder / ".novad").iterdir()] == [".gitignore"]
    assert [path.name for path in (site.runtime / "novad").iterdir()] == ["choosing-ports"]


def test_a_port_that_is_insisted_on_is_kept(site: Site) -> None:
    site.write('[services.web]\ncommand = "sleep 1000"\nports = { http = "18774!" }\n')
    code, out, err = site.run("--", *SHOW)
    assert (code, json.loads(out)["WEB_PORT_HTTP"]) == (0, "18774"), err


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_code_of_the_command_is_the_code_of_run(site: Site, script: str, code: int) -> None:
    site.write(TWO)
    result = site.run("--", "sh", "-c", script)
    assert result[0] == code, result


def test_a_cluster_that_does_not_come_up_is_125_with_the_reason(site: Site) -> None:
    site.write('[services.web]\ncommand = ["sh", "-c", "echo no such luck >&2; exit 9"]\ngive_up_after = 1\n')
    code, out, err = site.run("--", "echo", "started")
    assert code == 125
    assert "no such luck" in err
    assert "started" not in out
    assert site.left_after(2) == []


def test_time_that_runs_out_is_124(site: Site) -> None:
    site.write(TWO)
    code, _, err = site.run("--timeout", "1500ms", "--", "sleep", "1000")
    assert code == 124, err
    # On a slow machine the cluster is not even up by then.
    assert "time was up" in err or "did not come up in time" in err
    assert site.left_after(2) == []


CRASHING = '[services.web]\ncommand = ["sh", "-c", "echo broken pipe dream >&2; read line < go; exit 3"]\n'


@pytest.mark.parametrize(("flags", "code"), [((), 1), (("--no-fail-on-crash",), 0)])
def test_a_crash_that_nobody_asked_for_makes_1(site: Site, flags: tuple[str, ...], code: int) -> None:
    site.write(CRASHING)
    os.mkfifo(site.folder / "go")
    command = (
        "echo x > go; novad() { " + f"{sys.executable} -m novad" + ' "$@"; }; novad wait web --for ready >&2'
    )
    # The crash has happened when the next child waits for the FIFO again.
    found, _, err = site.run(*flags, "--", "sh", "-c", command + "; echo x > go")
    assert found == code, err
    assert "broken pipe dream" in err
    assert "nobody asked for it: web" in err


def test_a_signal_that_the_command_asked_for_is_no_crash(site: Site) -> None:
    site.write(TWO)
    novad = f"{sys.executable} -m novad"
    code, _, err = site.run("--", "sh", "-c", f"{novad} signal KILL web && {novad} wait web --for ready")
    assert code == 0, err


def test_a_missing_command_is_127_before_anything_is_started(site: Site) -> None:
    site.write(TWO)
    code, _, err = site.run("--", "no-such-command-here")
    assert code == 127
    assert "nothing was started" in err
    assert f"hint: it is in no directory of PATH: {site.environ['PATH']}" in err
    assert not (site.folder / ".novad").exists()


def test_a_daemon_that_stands_still_at_the_end_is_killed_with_all_it_has(site: Site) -> None:
    site.write(STUBBORN)
    freeze = "import json, os, subprocess, sys\n" \
             "found = subprocess.run([sys.executable, '-m', 'novad', 'status', '--json'], capture_output=True)\n" \
             "os.kill(json.loads(found.stdout)['daemon']['pid'], 19)"  # fmt: skip
    code, _, err = site.run("--", sys.executable, "-c", freeze)
    assert code == 125
    assert "the daemon did not answer within 10 s; it was killed, and its services with it" in err
    assert site.left_after(2) == []
    assert [path.name for path in (site.runtime / "novad").iterdir()] == ["choosing-ports"]


def test_a_command_that_cannot_be_run_says_what_to_type(site: Site) -> None:
    site.write(TWO)
    script = site.folder / "check-it"
    script.write_text("#!/bin/sh\n")
    assert site.run("--", "check-it")[2].splitlines()[-1] == "hint: there is a file of this name here: ./check-it"
    code, _, err = site.run("--", "./check-it")
    assert (code, err.splitlines()[-1]) == (126, "hint: chmod +x ./check-it")
    script.chmod(0o755)
    code, _, err = site.run("--", "./chek-it")
    assert (code, err.splitlines()[-1]) == (127, "hint: did you mean ./check-it?")
    assert site.run("--", str(site.folder))[0] == 126


def test_a_mistake_in_the_file_is_78(site: Site) -> None:
    site.write("[services.web]\ncomand = 'x'\n")
    assert site.run("--", "true")[0] == 78
    assert site.left_after(0) == []


def test_two_runs_at_once_do_not_meet(site: Site) -> None:
    site.write(TWO)
    both = [site.novad("run", "--", *SHOW) for _ in range(3)]
    ends = [child.communicate(timeout=60) for child in both]
    assert [child.returncode for child in both] == [0, 0, 0], ends
    envs = [json.loads(out) for out, _ in ends]
    ports = [env[name] for env in envs for name in ("WEB_PORT_HTTP", "WEB_PORT_ADMIN")]
    assert len({env["NOVAD_SOCKET"] for env in envs}) == 3
    assert len(set(ports)) == 6


def test_kept_means_kept_until_down(site: Site) -> None:
    site.write(TWO)
    code, out, err = site.run("--keep", "--", *SHOW)
    assert code == 0, err
    namespace = json.loads(out)["NOVAD_NAMESPACE"]
    assert {seen.command.split()[0] for seen in site.live()} >= {"sleep"}
    down = site.novad("--namespace", namespace, "down")
    assert down.wait(30) == 0
    down.communicate()
    assert site.left_after(2) == []


def begun(site: Site) -> subprocess.Popen[str]:
    site.write(STUBBORN)
    runner = site.novad("run", "--", *LONG)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "running\n"
    return runner


@pytest.mark.parametrize(
    "victims", ["run", "daemon", "run daemon", "daemon run", "command run", "daemon command run"]
)
def test_two_seconds_after_a_kill_nothing_is_left(site: Site, victims: str) -> None:
    runner = begun(site)
    (daemon,) = site.daemons()
    command = next(seen.pid for seen in site.live() if seen.command.startswith("sh -c echo running"))
    for victim in victims.split():
        # One death may have brought about the next by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill({"run": runner.pid, "daemon": daemon, "command": command}[victim], signal.SIGKILL)
    assert site.left_after(2.0) == []
    runner.communicate(timeout=10)
    assert runner.returncode != 0


def test_the_guardian_is_small_and_sleeps(site: Site) -> None:
    from tests.system import oracle

    runner = begun(site)
    (guardian,) = [seen for seen in oracle.processes(str(site.runtime)) if "novad-guardian" in seen.command]
    before = oracle.wakeups(guardian.pid)
    assert oracle.rss_bytes(guardian.pid) < 10_000_000
    site.novad("status").communicate(timeout=30)
    assert oracle.wakeups(guardian.pid) == before
    runner.kill()
    runner.communicate()
    assert site.left_after(2.0) == []


def test_ctrl_c_twice_ends_everything(site: Site) -> None:
    runner = begun(site)
    assert runner.stderr is not None
    runner.send_signal(signal.SIGINT)
    while "Ctrl-C again" not in (line := runner.stderr.readline()):
        assert line, "it ended without a word"
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert site.left_after(2.0) == []


def test_terminate_ends_everything_in_good_order(site: Site) -> None:
    runner = begun(site)
    runner.terminate()
    runner.communicate(timeout=30)
    assert runner.returncode == 143
    assert site.left_after(2.0) == []


def test_the_oracle_sees_what_is_left(site: Site) -> None:
    stray = site.start("sleep", "1000")
    assert {seen.pid for seen in site.left_after(0.1)} == {stray.pid}
    stray.kill()
    stray.communicate()
    assert site.left_after(0.1) == []
