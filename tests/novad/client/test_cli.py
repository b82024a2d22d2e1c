"""The verbs through the real command line, against a scripted daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from novad.cli import main
from novad.core.errors import NoSuchService
from novad.core.wire import Event, Reply, Request
from tests.novad.client.fakes import FakeDaemon, document, process, subscription

LINE = "2026-11-23T17:01:0{}.000000Z {} {}\n"


def novad(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=stdin, catch_exceptions=False)


def log_of(project: Path, name: str, *lines: tuple[int, str, str]) -> str:
    folder = project / ".novad" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    path.write_text("".join(LINE.format(second, stream, text) for second, stream, text in lines))
    return str(path)


def test_an_unknown_verb_gets_the_nearest_ones(project: Path) -> None:
    result = novad("statsu")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: no such command `statsu`",
        "hint: did you mean `status` or `start` or `restart`?",
    ]


def test_an_unknown_option_gets_the_nearest_one(project: Path) -> None:
    result = novad("status", "--chek")
    assert result.exit_code == 2
    assert "did you mean `--check`?" in result.stderr


def test_not_running_is_3_and_says_what_to_type(project: Path) -> None:
    result = novad("status")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[1] == "hint: novad up"
    assert novad("-C", str(project), "status").stderr.splitlines()[1] == f"hint: novad -C {project} up"


def test_without_a_verb_and_a_daemon_twelve_lines_help(project: Path) -> None:
    result = novad()
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 12


def test_status_prints_the_table_and_json_the_document(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(process("api", pid=7, uptime_s=3.0))
    assert "api" in novad("status").stdout
    for words in (("--json", "status"), ("status", "--json"), ("ps", "--json")):
        found = json.loads(novad(*words).stdout)
        assert found["schema"] == 1
        assert found["processes"][0]["name"] == "api"


def test_status_check_judges(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(
        process("api"), process("old", "stopped", want="down"), process("x", "done")
    )
    assert novad("status", "--check").exit_code == 0
    daemon.answers["status"] = document(process("api", "starting"))
    assert novad("status", "--check").exit_code == 3


def test_a_misspelled_service_is_4_with_the_daemons_hint(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = NoSuchService("no service `ap`", "did you mean `api`?")
    result = novad("status", "ap")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (4, "hint: did you mean `api`?")


def test_status_of_one_shows_details_and_its_last_lines(daemon: FakeDaemon, project: Path) -> None:
    log = log_of(project, "api", *[(number % 10, "o", f"line {number}") for number in range(15)])
    daemon.answers["status"] = document(process("api", pid=7, log=log))
    daemon.answers["why"] = {"processes": [{"name": "api", "argv": ["nova-api", "--port", "1"], "cwd": "/src",
                                            "since_s": 61.0}]}  # fmt: skip
    shown = novad("status", "api").stdout
    assert "ready for 1m01s, pid 7" in shown
    assert "nova-api --port 1" in shown
    assert [line for line in shown.splitlines() if "line 4" in line] == []
    assert len([line for line in shown.splitlines() if "line " in line]) == 10


def test_start_waits_until_ready_and_says_so(daemon: FakeDaemon) -> None:
    daemon.answers["start"] = {"names": ["api"]}
    daemon.answers["wait"] = {"met": True}
    result = novad("start", "api")
    assert result.exit_code == 0
    assert result.stdout.startswith("api ready")
    assert daemon.requests[-1].args == {"names": ["api"], "for": "ready"}


def test_a_start_that_cannot_succeed_is_1_and_names_who_and_why(daemon: FakeDaemon) -> None:
    daemon.answers["start"] = {"names": ["api"]}
    daemon.answers["wait"] = {"met": False, "unmet": [{"name": "api", "state": "failed", "note": "exit 1"}]}
    result = novad("start", "api")
    assert result.exit_code == 1
    assert "api  failed  exit 1" in result.stderr
    assert result.stderr.splitlines()[-1] == "hint: novad why api"


def test_waiting_longer_than_the_timeout_is_124(daemon: FakeDaemon) -> None:
    daemon.answers["wait"] = lambda request: None
    daemon.answers["status"] = document(process("api", "starting", note="http: connection refused"))
    result = novad("wait", "api", "--timeout", "50ms")
    assert result.exit_code == 124
    assert "http: connection refused" in result.stderr


def test_holding_counts_from_the_last_break(daemon: FakeDaemon) -> None:
    daemon.answers["wait"] = {"met": True}
    daemon.answers["status"] = document(process("api"))
    daemon.answers["subscribe"] = subscription(
        {"type": "state", "name": "api", "state": "backoff"},
        {"type": "state", "name": "api", "state": "ready"},
        processes=[process("api")],
    )
    assert novad("wait", "api", "--hold", "50ms", "--timeout", "10s").exit_code == 0
    daemon.answers["subscribe"] = subscription(
        {"type": "state", "name": "api", "state": "backoff"}, processes=[process("api")]
    )
    assert novad("wait", "api", "--hold", "50ms", "--timeout", "100ms").exit_code == 124


def test_stop_tells_how_each_ended_and_survivors_are_an_error(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(process("api", pid=7))
    daemon.answers["stop"] = {
        "stopped": [{"name": "api", "how": "killed by SIGKILL after 3.10 s", "seconds": 0.2}],
        "survivors": [{"name": "api", "pid": 8, "command": "sleep 1", "held": "frozen by its cgroup /x"}],
    }
    result = novad("stop", "api", "--timeout", "2s")
    assert result.exit_code == 1
    assert "api  stopped in 0.20s  killed by SIGKILL after 3.10 s" in result.stdout
    assert "pid 8 did not die: sleep 1 (frozen by its cgroup /x)" in result.stderr
    assert daemon.requests[-1].args == {"names": ["api"], "timeout_s": 2.0, "kill": False}


@pytest.mark.parametrize(
    "words", [("signal", "sigusr1", "api"), ("signal", "USR1", "api"), ("kill", "-s", "USR1", "api")]
)
def test_signals_are_spelled_as_users_do(daemon: FakeDaemon, words: tuple[str, ...]) -> None:
    daemon.answers["signal"] = {"signalled": [{"name": "api", "pid": 7}]}
    assert novad(*words).stdout == "sent SIGUSR1 to api (7)\n"
    assert daemon.requests[-1].args == {"names": ["api"], "signal": "USR1", "group": False}


def test_svc_letters_act_in_order(daemon: FakeDaemon) -> None:
    daemon.answers |= {
        "stop": {"stopped": [], "survivors": []},
        "start": {"names": []},
        "signal": {"signalled": []},
    }
    assert novad("svc", "-dut", "api", "db").exit_code == 0
    assert daemon.verbs() == ["stop", "start", "signal"]
    assert daemon.requests[-1].args == {"names": ["api", "db"], "signal": "TERM", "group": False}
    assert novad("svc", "-z", "api").exit_code == 2
    assert novad("svc", "-t").exit_code == 2


def test_svc_takes_q_and_h_as_letters_and_not_as_options(daemon: FakeDaemon) -> None:
    daemon.answers["signal"] = {"signalled": []}
    assert novad("svc", "-q", "api").exit_code == 0
    assert novad("svc", "-h", "api").exit_code == 0
    assert [request.args["signal"] for request in daemon.requests] == ["QUIT", "HUP"]


def novad_in_process(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "novad", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_down_without_anything_running_is_done(project: Path) -> None:
    result = novad("down")
    assert result.exit_code == 0
    assert "not running" in result.stdout


def test_logs_of_several_services_are_merged_in_time_order(daemon: FakeDaemon, project: Path) -> None:
    api = log_of(project, "api", (1, "o", "first"), (3, "e", "third"))
    db = log_of(project, "db", (2, "o", "second"))
    daemon.answers["status"] = document(process("api", log=api), process("db", log=db))
    shown = [line.split("|")[1].strip() for line in novad("logs").stdout.splitlines()]
    assert shown == ["first", "second", "third"]
    assert [line.split("| ")[1] for line in novad("logs", "-n", "1").stdout.splitlines()] == ["third"]
    assert len(novad("logs", "--stderr").stdout.splitlines()) == 1


def test_logs_of_one_service_in_a_pipe_are_bare(daemon: FakeDaemon, project: Path) -> None:
    log = log_of(project, "api", (1, "o", '{"a": 1}'))
    daemon.answers["status"] = document(process("api", log=log))
    assert novad("logs", "api").stdout == '{"a": 1}\n'
    assert novad("logs", "api", "--prefix").stdout.endswith('api | {"a": 1}\n')


def test_a_run_that_is_not_kept_is_said_to_be_so(daemon: FakeDaemon, project: Path) -> None:
    daemon.answers["status"] = document(process("api", log=log_of(project, "api", (1, "n", "started, pid 7"))))
    assert novad("logs", "api", "--run", "0").exit_code == 0
    done = novad("logs", "api", "--run", "-2")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no run -2 of api is kept" in done.stderr


def test_logs_as_json_lines(daemon: FakeDaemon, project: Path) -> None:
    log = log_of(project, "api", (1, "e", "boom"))
    daemon.answers["status"] = document(process("api", log=log))
    assert json.loads(novad("logs", "--json").stdout) == {
        "schema": 1, "name": "api", "at": "2026-11-23T17:01:01.000000Z", "stream": "stderr", "text": "boom",
    }  # fmt: skip


def test_logs_work_without_a_daemon(project: Path) -> None:
    log_of(project, "api", (1, "o", "kept"))
    assert novad("logs", "api").stdout == "kept\n"
    result = novad("logs", "apo")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (4, "hint: did you mean api?")


def test_following_continues_where_the_stored_part_ended(daemon: FakeDaemon, project: Path) -> None:
    log = log_of(project, "api", (1, "o", "stored"), (2, "o", "pushed"))
    daemon.answers["status"] = document(process("api", log=log))
    daemon.answers["subscribe"] = subscription(
        {"type": "lines", "name": "api", "text": LINE.format(2, "o", "pushed")},
        {"type": "lines", "name": "api", "text": LINE.format(3, "o", "new")},
        {"type": "ended"},
        offsets={"api": len(LINE.format(1, "o", "stored"))},
    )
    result = novad("logs", "-f", "api")
    assert result.stdout == "stored\npushed\nnew\n"
    assert "has ended" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("-g", "("), ("-S", "soon"), ("-l", "loud"), ("-n", "x"), ("-C", "-1"), ("--run", "x"), ("--run", "5")],
)
def test_bad_options_of_logs_are_2_without_a_traceback(project: Path, words: tuple[str, str]) -> None:
    result = novad("logs", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "hint: " in result.stderr


def test_a_defect_is_one_line_and_a_file_with_the_traceback(daemon: FakeDaemon, project: Path) -> None:
    daemon.answers["status"] = {"nonsense": True}
    result = novad("status")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error: novad failed: KeyError")
    assert "Traceback" in Path(second.rpartition(" ")[2]).read_text()


def test_verbose_shows_the_requests(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document()
    assert '→ status {"names": []' in novad("-v", "status").stderr


def test_json_and_color_options_may_stand_on_both_sides_of_the_verb(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(process("api"))
    assert "\x1b[" in novad("--color", "always", "status").stdout
    assert "\x1b[" in novad("status", "--color", "always").stdout
    assert "\x1b[" not in novad("status").stdout


@pytest.mark.parametrize("words", [["--graph", "api"], ["--graph=mermaid", "api"], ["api", "--graph"],
                                   ["--timeline", "api"], ["--graph", "dot", "api"]])  # fmt: skip
def test_an_option_that_may_have_a_value_takes_no_name_of_a_service(daemon: FakeDaemon, words: list[str]) -> None:
    daemon.answers["status"] = document(process("api"))
    daemon.answers["spec"] = {"cluster": None}
    novad("status", *words)
    assert [request.args["names"] for request in daemon.requests if request.verb == "status"] == [["api"]]


def test_every_verb_has_two_examples_and_help_that_names_its_options(project: Path) -> None:
    from novad.client.commands import VERBS

    for verb in VERBS:
        assert len(verb.examples) == 2, verb.name
        shown = novad("help", verb.name).stdout
        assert all(command in shown for command, _ in verb.examples)
        assert shown == novad(verb.name, "--help").stdout


@pytest.mark.parametrize("verb", ["status", "logs", "--help", "help"])
def test_cheap_commands_load_no_heavy_module(daemon: FakeDaemon, verb: str) -> None:
    daemon.answers["status"] = document(process("api"))
    code = (
        "import sys\n"
        "from novad.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = 'eventlet psutil pydantic kombu prompt_toolkit asyncio sqlalchemy tomli dotenv'.split()\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, timeout=30)
    assert done.stderr == "[]\n"


def test_up_begins_without_the_compiler() -> None:
    code = "import sys, novad.cli, novad.client.verbs.up; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["pydantic", "novad.config", "novad.core.spec", "novad.client.bringing"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n"


def test_completion_offers_verbs_options_and_services_without_heavy_modules(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(process("compute.1"), process("compute.2"), process("api"))
    environ = os.environ | {"_NOVAD_COMPLETE": "bash_complete"}

    def complete(line: str) -> set[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "novad"],
            env=environ | words, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert " asyncio" not in done.stderr
        assert " prompt_toolkit" not in done.stderr
        return {row.partition(",")[2] for row in done.stdout.splitlines()}

    assert {"status", "start", "stop", "restart"} - complete("novad st") == {"restart"}
    assert complete("novad restart comp") == {"compute", "compute.1", "compute.2"}
    assert "--follow" in complete("novad logs --fo")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(project: Path, shell: str) -> None:
    assert f"_NOVAD_COMPLETE={shell}_complete" in novad("completion", shell).stdout


def test_init_writes_a_file_once(project: Path) -> None:
    assert novad("init").exit_code == 2
    (project / "nova.toml").unlink()
    assert novad("init").exit_code == 0
    assert "[services]" in (project / "nova.toml").read_text()


def test_a_reader_that_leaves_early_is_no_error(daemon: FakeDaemon, project: Path) -> None:
    log = log_of(project, "api", *[(1, "o", "x" * 1000)] * 2000)
    daemon.answers["status"] = document(process("api", log=log))
    done = subprocess.run(
        f"{sys.executable} -m novad logs | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_directory_that_was_removed_is_told_as_that(project: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f"rmdir {gone}; exec {sys.executable} -P -m novad status"],
        cwd=gone, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: the current directory does not exist any more",
    )


def test_a_terminal_without_unicode_is_no_defect(daemon: FakeDaemon) -> None:
    daemon.answers["status"] = document(process("api"))
    done = subprocess.run(
        [sys.executable, "-m", "novad", "status"], env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "? ready" in done.stdout


def test_the_trace_of_requests_keeps_the_environment_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    from novad.client.app import App, Options

    app = App(Options(verbose=True), None, lambda words, app: 0)  # type: ignore[arg-type]
    app.trace(Request(1, "up", {"cluster": {"env": {"TOKEN": "secret"}}, "names": ["api"]}))
    assert capsys.readouterr().err == '→ up {"cluster": "...", "names": ["api"]}\n'


def test_up_misses_no_change_that_comes_in_one_breath_with_an_answer(daemon: FakeDaemon, project: Path) -> None:
    """The answer to `up` and the news that the service is ready arrive together; then all is silent."""
    (project / "nova.toml").write_text('[services]\napi = "sleep 600"\n')
    row = process("api", "stopped", pid=None)

    def up(request: Any) -> list[Any]:
        reply = Reply(request.id, {"names": ["api"], "loaded": True, "changed": False})
        if not request.args["start"]:
            return [reply]
        subscribed = next(item for item in daemon.requests if item.verb == "subscribe")
        news = [{"type": "state", "from": "stopped", "cause": "", "at": 0.0, **process("api", state)}
                for state in ("starting", "ready")]  # fmt: skip
        before, after = (Event(subscribed.id, event) for event in news)
        return [before, reply, after]

    daemon.answers |= {
        "up": up,
        "status": document(row),
        "subscribe": {"processes": [row], "offsets": {}},
        "spec": {"cluster": None},
    }
    result = novad("up", "-d", "--timeout", "5s")
    assert result.exit_code == 0, result.stderr
    assert "1 ready" in result.stderr
