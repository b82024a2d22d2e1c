"""The command line with a real daemon and real processes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import textwrap
import threading
from pathlib import Path
from typing import IO

from tests.system.client import Project, marked_processes

TWO = """
[services.db]
command = ["sh", "-c", "echo up; exec sleep 1000"]
ready = { log = "up" }
[services.api]
command = ["sh", "-c", "echo hello from api; exec sleep 1000"]
after = ["db"]
ready = { log = "hello" }
"""
CRASH = """
[services.api]
command = ["python3", "-c", "import no_such_module_here"]
[services.after]
command = "sleep 1000"
after = ["api"]
[services.web]
command = "sleep 1000"
ready = { log = "never said" }
"""


def test_up_detached_returns_when_ready_and_down_leaves_nothing(project: Project, tmp_path: Path) -> None:
    project.write(TWO)
    done = project.novad("up", "-d")
    assert done.returncode == 0, done.stderr
    assert "2 ready in" in done.stderr
    assert {item["state"] for item in project.processes().values()} == {"ready"}
    assert marked_processes(tmp_path)
    down = project.novad("down")
    assert down.returncode == 0
    assert marked_processes(tmp_path) == []
    assert not project.is_up()


def test_quiet_verbs_say_nothing_where_all_is_well(project: Project) -> None:
    project.write('[services]\napi = "sleep 1000"\n')
    for words in (["up", "-d"], ["restart", "api"], ["stop", "api"], ["start", "api"], ["signal", "CONT", "api"],
                  ["down"], ["down"]):  # fmt: skip
        done = project.novad("-q", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words
    assert project.novad("stop", "api", "-q").returncode == 3


def test_five_up_at_once_give_one_daemon(project: Project) -> None:
    project.write(TWO)
    racing = [project.start("up", "-d") for _ in range(5)]
    ends = [(child.communicate(timeout=40), child.returncode) for child in racing]
    assert [code for _, code in ends] == [0] * 5, ends
    assert len({item["pid"] for item in project.processes().values()}) == 2
    log = (project.directory / ".novad" / "novad.log").read_text()
    assert "Traceback" not in log


def test_a_service_that_fails_ends_up_with_1_and_tells_why(project: Project) -> None:
    project.write(CRASH)
    done = project.novad("up", "-d", "api", "after")
    assert done.returncode == 1
    assert "module `no_such_module_here` is not installed" in done.stderr
    assert "novad restart api" in done.stderr
    why = project.novad("why")
    assert "always the same error" in why.stdout
    entry = json.loads(project.novad("why", "api", "--json").stdout)["processes"][0]
    assert entry["exits"][0]["exit_code"] == 1


def test_a_timeout_of_up_is_124_and_says_what_is_awaited(project: Project) -> None:
    project.write(CRASH)
    done = project.novad("up", "-d", "web", "--timeout", "300ms")
    assert done.returncode == 124
    assert "error: not ready in time: web" in done.stderr
    assert "novad logs web" in done.stderr or "web is starting" in done.stderr


def test_a_configuration_error_is_78_and_starts_nothing(project: Project) -> None:
    project.write(
        '[services.api]\ncommand = "sleep 1"\nafter = ["databse"]\n[services.database]\ncommand = "sleep 1"\n'
    )
    done = project.novad("up", "-d")
    assert done.returncode == 78
    assert "did you mean `database`?" in done.stderr
    assert not project.is_up()
    short = project.novad("check", "--format", "short")
    assert (short.returncode, short.stdout.count("\n")) == (78, 1)
    assert short.stdout.startswith("nova.toml:")


def test_a_misspelled_service_starts_no_daemon(project: Project) -> None:
    project.write(TWO)
    done = project.novad("up", "-d", "apo")
    assert (done.returncode, "did you mean api?" in done.stderr) == (4, True)
    assert not project.is_up()


def test_logs_follow_without_gap_or_duplicate(project: Project) -> None:
    loop = "i=0; while :; do i=$((i+1)); echo line $i; done"
    project.write(
        f"[services.busy]\ncommand = ['sh', '-c', '{loop}']\nready = {{ log = 'line' }}\nlogs = {{ max = '100MiB' }}\n"
    )
    assert project.novad("up", "-d").returncode == 0
    follower = project.start("logs", "-f", "-n", "5", "busy")
    assert follower.stdout is not None
    numbers = []
    while len(numbers) < 3000:
        text = follower.stdout.readline()
        if text.startswith("line "):
            numbers.append(int(text.split()[1]))
        assert text, "the follower ended"
    follower.kill()
    follower.wait()
    follower.stdout.close()
    skipped = [pair for pair in itertools.pairwise(numbers) if pair[1] != pair[0] + 1]
    assert skipped == []


def test_stop_start_restart_and_wait_do_what_they_say(project: Project) -> None:
    project.write(TWO)
    project.novad("up", "-d")
    before = project.processes()["api"]["pid"]
    assert "stopped in" in project.novad("stop", "api").stdout
    assert project.processes()["api"]["state"] == "stopped"
    assert project.novad("wait", "api", "--timeout", "5s").returncode == 1
    assert project.novad("start", "api").returncode == 0
    assert project.processes()["api"]["pid"] != before
    assert project.novad("restart", "--rolling", "all").returncode == 0
    assert project.novad("status", "--check").returncode == 0


def test_a_restart_with_dependents_leaves_what_is_needed_and_what_is_down_alone(project: Project) -> None:
    project.write(
        '[services]\ndb = "sleep 1000"\nother = "sleep 1000"\n'
        'api = { command = "sleep 1000", after = ["db"] }\n'
        'web = { command = "sleep 1000", after = ["api"] }\n'
        'idle = { command = "sleep 1000", after = ["api"], autostart = false }\n'
        'sync = { command = "true", after = ["api"], oneshot = true }\n'
    )
    assert project.novad("up", "-d").returncode == 0
    before = project.processes()
    done = project.novad("restart", "--deps", "api")
    assert done.returncode == 0, done.stderr
    now = project.processes()
    assert {name for name in now if now[name]["pid"] != before[name]["pid"]} == {"api", "web"}
    assert (now["idle"]["state"], now["sync"]["state"]) == ("stopped", "done")
    assert now["sync"]["uptime_s"] == before["sync"]["uptime_s"]
    assert {now[name]["state"] for name in ("api", "web", "db", "other")} == {"ready"}


def test_a_killed_child_is_told_as_killed_by_somebody_else(project: Project) -> None:
    project.write(TWO)
    project.novad("up", "-d")
    os.kill(project.processes()["db"]["pid"], signal.SIGKILL)
    project.until(lambda: project.processes()["db"]["restarts"] == 1)
    assert "killed by SIGKILL (9), not sent by novad" in project.novad("why", "db").stdout


def test_reload_shows_the_difference_and_restarts_only_what_changed(project: Project) -> None:
    project.write(TWO)
    project.novad("up", "-d")
    before = project.processes()
    assert "nothing has changed" in project.novad("reload").stdout
    project.write("# a remark moves all lines and changes nothing\n" + TWO)
    assert "nothing has changed" in project.novad("reload").stdout
    project.write(TWO + 'env = { LEVEL = "debug" }\n[services.new]\ncommand = "sleep 1000"\n')
    dry = project.novad("reload", "--dry-run").stdout
    assert '~ api.env.LEVEL  (none) → "debug"' in dry
    assert "+ new" in dry
    assert project.processes().keys() == before.keys()
    assert project.novad("reload").returncode == 0
    project.novad("wait", "--timeout", "10s")
    now = project.processes()
    assert now["db"]["pid"] == before["db"]["pid"]
    assert now["api"]["pid"] != before["api"]["pid"]
    assert "new" in now


def test_reload_says_what_it_restarts_of_what_has_failed_and_of_what_is_down(project: Project) -> None:
    failing = '[services.api]\ncommand = ["sh", "-c", "test -e go && exec sleep 1000"]\ngive_up_after = 1\n'
    down = "[services.db]\ncommand = 'sleep 1000'\n"
    project.write(failing + down)
    assert project.novad("up", "-d").returncode == 1
    assert project.novad("stop", "db").returncode == 0
    project.write("", "go")
    project.write(failing + 'restart = "always"\n' + down + 'env = { A = "1" }\n')
    done = project.novad("reload")
    assert done.returncode == 0, done.stderr
    assert "restart api" in done.stdout
    assert "restart db" not in done.stdout
    assert {name: row["state"] for name, row in project.processes().items()} == {"api": "ready", "db": "stopped"}


def test_a_second_up_says_when_the_file_has_changed(project: Project) -> None:
    project.write(TWO)
    assert "differs" not in project.novad("up", "-d").stderr
    project.environ["SOMETHING_ELSE"] = "of another shell"
    assert "differs" not in project.novad("up", "-d").stderr
    project.write(TWO + 'env = { LEVEL = "debug" }\n')
    assert "reload shows the difference" in project.novad("up", "-d").stderr


def test_two_namespaces_of_one_file_do_not_meet(project: Project) -> None:
    project.write(TWO)
    assert project.novad("up", "-d").returncode == 0
    assert project.novad("--namespace", "ci", "up", "-d").returncode == 0
    pids = {item["pid"] for item in project.processes().values()}
    assert project.novad("--namespace", "ci", "down").returncode == 0
    assert {item["pid"] for item in project.processes().values()} == pids


def test_check_shows_where_each_value_comes_from_and_hides_secrets(project: Project) -> None:
    project.write(TWO + 'env = { LEVEL = "debug", API_TOKEN = "s3cret" }\n')
    project.environ["OF_THE_SHELL"] = "yes"
    shown = project.novad("check", "--show", "api").stdout
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["env.LEVEL"][1:] == ["debug", "nova.toml:12"]
    assert rows["restart"][1:] == ["on-failure", "default"]
    project.write(
        '[services.api]\ncommand = ["sleep", "1000", "--password", "s3cret"]\nurl = "http://u:s3cret@h/"\n'
        'ready = { exec = "true --token=s3cret" }\nhealth = { exec = ["true", "--token", "s3cret"] }\n'
    )
    shown += project.novad("check", "--show", "api").stdout
    assert "true --token=***" in shown.replace("'", "")
    assert "s3cret" not in shown + project.novad("--json", "check", "--show", "api").stdout
    assert "OF_THE_SHELL" not in shown
    assert "OF_THE_SHELL" in project.novad("-v", "check", "--show", "api").stdout
    assert project.novad("check", "--show", "apo").returncode == 4


def test_check_explains_keys_and_gives_editors_a_schema(project: Project) -> None:
    project.write(TWO)
    assert "novad check --schema lists all keys" in project.novad("check", "--explain", "zzz").stderr
    assert "services to wait for" in project.novad("check", "--explain", "after").stdout
    assert json.loads(project.novad("check", "--schema").stdout)["title"] == "nova.toml"
    wrong = project.novad("check", "--explain", "afer")
    assert (wrong.returncode, "did you mean `after`?" in wrong.stderr) == (2, True)


def test_init_writes_a_file_that_runs(project: Project) -> None:
    assert project.novad("init").returncode == 0
    assert project.novad("up", "-d").returncode == 0
    assert project.processes()["web"]["state"] == "ready"


def test_the_system_check_names_who_holds_a_port(project: Project) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        project.write(f'[services.api]\ncommand = "sleep 1"\nports = {{ http = {number} }}\n')
        done = project.novad("doctor")
    assert done.returncode == 1
    assert f"api.http wants {number}, held by pid {os.getpid()}" in done.stdout


def test_an_owner_whose_output_nobody_reads_any_more_ends_its_cluster(project: Project, tmp_path: Path) -> None:
    project.write(TWO)
    up = project.start("up")
    assert up.stdout is not None
    assert up.stderr is not None
    while "2 ready" not in up.stderr.readline():
        assert up.poll() is None
    assert "started, pid" in up.stdout.readline()
    up.stdout.close()
    assert up.wait(20) == 0
    up.stderr.close()
    project.until(lambda: not project.is_up())
    project.until(lambda: marked_processes(tmp_path) == [])


def test_a_follower_whose_output_nobody_reads_any_more_ends(project: Project) -> None:
    project.write(TWO)
    project.novad("up", "-d")
    follower = project.start("logs", "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(20) == 0


def test_without_a_terminal_no_line_of_the_start_is_lost(project: Project) -> None:
    many = "for i in range(20000): print(i)"
    command = f"import time\\n{many}\\nprint('end', flush=True)\\ntime.sleep(1000)"
    project.write(f'[services.many]\ncommand = ["python3", "-c", "{command}"]\nready = {{ log = "end" }}\n')
    up = project.start("up")
    assert up.stdout is not None
    numbers = []
    while not (text := up.stdout.readline()).endswith("| end\n"):
        assert text, "it ended"
        if text.rpartition(" ")[2].strip().isdigit() and "started" not in text:
            numbers.append(int(text.rpartition(" ")[2]))
    # More than a client may leave unread is skipped, and said to be: this much never is.
    assert numbers == list(range(20000))
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)
    assert up.returncode == 130


def test_a_flood_during_the_start_is_shown_or_counted(project: Project) -> None:
    program = """
        import os, time
        print("\\n".join(map(str, range(400_000))))
        print("end", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        print("last", flush=True)
        time.sleep(1000)
    """
    project.write(textwrap.dedent(program), "flood.py")
    project.write('[services.many]\ncommand = "python3 flood.py"\nready = { log = "^end$" }\n')
    up = project.start("up")
    assert up.stdout is not None
    assert up.stderr is not None
    shown: list[str] = []

    def read(stdout: IO[str]) -> None:
        for line in stdout:
            shown.append(line.rstrip())
            if line.endswith(" last\n"):
                break

    reader = threading.Thread(target=read, args=[up.stdout], daemon=True)
    reader.start()
    while "1 ready" not in up.stderr.readline():
        assert up.poll() is None
    project.write("", "go")
    reader.join(60)
    assert shown[-1].endswith(" last")
    skipped = sum(int(line.split()[1]) for line in shown if line.endswith(" lines skipped"))
    # Besides the numbers: `end`, `last`, and novad's own two on the start and on being ready.
    assert sum(1 for line in shown if " | " in line) + skipped == 400_000 + 4
    assert skipped > 0
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)


def test_a_running_cluster_is_scaled_without_touching_the_rest(project: Project) -> None:
    project.write('[services.web]\ncommand = "sleep 600"\nreplicas = 2\n[services.one]\ncommand = "sleep 600"\n')
    project.novad("up", "-d")
    before = {name: item["pid"] for name, item in project.processes().items()}
    assert project.novad("up", "-d", "--scale", "web=4").returncode == 0
    after = {name: item["pid"] for name, item in project.processes().items()}
    assert list(after) == ["web.1", "web.2", "web.3", "web.4", "one"]
    assert before.items() <= after.items()
    # What the command line said is not forgotten by the next commands.
    assert "nothing has changed" in project.novad("reload", "-y").stdout
    assert project.novad("up", "-d").returncode == 0
    assert len(project.processes()) == 5
    assert project.novad("up", "-d", "--scale", "web=1").returncode == 0
    project.until(lambda: list(project.processes()) == ["web.1", "one"])
    assert {name: item["pid"] for name, item in project.processes().items()}.items() <= before.items()


def test_scaling_what_is_not_there_is_4_with_the_nearest_and_starts_nothing(project: Project) -> None:
    project.write('[services.web]\ncommand = "sleep 600"\nreplicas = 2\n[services.one]\ncommand = "sleep 600"\n')
    done = project.novad("up", "-d", "--scale", "wep=2")
    assert done.returncode == 4
    assert "--scale wep: no such service" in done.stderr
    assert "did you mean `web`?" in done.stderr
    assert not project.is_up()


def test_a_service_that_was_scaled_can_be_taken_out_of_the_file(project: Project) -> None:
    one = '[services.one]\ncommand = "sleep 600"\n'
    project.write(f'[services.web]\ncommand = "sleep 600"\n{one}')
    project.novad("up", "-d", "--scale", "web=2")
    project.write(one)
    done = project.novad("reload", "-y")
    assert done.returncode == 0, done.stderr
    assert project.processes().keys() == {"one"}


def test_a_file_that_an_include_matches_from_now_on_is_noticed(project: Project) -> None:
    project.write('[novad]\ninclude = ["more/*.toml", "*.toml"]\n[services.one]\ncommand = "sleep 600"\n')
    project.novad("up", "-d")
    assert "changed since" not in project.novad("status").stdout
    (project.directory / "more").mkdir()
    project.write('[services.two]\ncommand = "sleep 600"\n', "more/two.toml")
    assert "more/two.toml changed since it was loaded: novad reload" in project.novad("status").stdout
    assert project.novad("reload", "-y").returncode == 0
    assert "changed since" not in project.novad("status").stdout
    assert project.processes().keys() == {"one", "two"}


def test_a_reload_that_adds_what_waits_for_a_stopped_service_answers_and_says_so(project: Project) -> None:
    project.write(TWO)
    project.novad("up", "-d")
    project.novad("stop", "db")
    more = '[services.new]\ncommand = "sleep 1000"\nafter = ["db"]\n'
    project.write(f'{TWO}{more}[services.newer]\ncommand = "sleep 1000"\nafter = ["new"]\n')
    done = project.novad("reload", "-y")
    assert done.returncode == 0, done.stderr
    assert "new waits for db (stopped)" in done.stderr
    assert "newer waits for new:started (waiting)" in done.stderr
    assert "novad start db" in done.stderr
    assert project.processes()["new"]["state"] == "waiting"
    project.novad("start", "db")
    assert project.novad("wait", "--timeout", "20s").returncode == 0
