from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from novad.client.commands import VERBS
from novad.client.shell.complete import candidates, is_subsequence
from novad.client.shell.lines import split_pipe
from novad.core.errors import UsageError
from tests.novad.client.fakes import FakeDaemon, document, process

ROWS: dict[str, Any] = {verb.name: (verb, ()) for verb in VERBS}
ROWS |= {name: (verb, prefix) for verb in VERBS for name, prefix in verb.aliases.items()}
PROCESSES = [
    process("api", uptime_s=724.0),
    process("compute.1", groups=["data"]),
    process("compute.2", "backoff", exit_code=1, groups=["data"]),
    process("volume", "stopped"),
]


def offered(before: str) -> list[str]:
    return [item.text for item in candidates(before, ROWS, PROCESSES)[1]]


def metas(before: str) -> dict[str, str]:
    return {item.text: item.meta for item in candidates(before, ROWS, PROCESSES)[1]}


def test_a_call_completes_topics_and_the_methods_called_on_them_before() -> None:
    calls = [("scheduler", "ping"), ("api", "stop"), ("scheduler", "place")]

    def offered_with(before: str) -> list[str]:
        return [item.text for item in candidates(before, ROWS, PROCESSES, calls)[1]]

    assert offered_with("call ")[:3] == ["scheduler", "api", "compute"]
    assert offered_with("call scheduler ") == ["ping", "place"]
    assert offered_with("call scheduler pl")[:1] == ["place"]
    assert "--fanout" in offered_with("call scheduler ping --")


def test_the_first_word_completes_verbs_with_their_help() -> None:
    assert offered("sta")[:2] == ["status", "start"]
    assert metas("sta")["status"] == "Show the services"
    assert "kill" not in offered("")


def test_services_carry_their_live_state() -> None:
    assert metas("restart ") == {
        "compute": "2 replicas, backoff, ready",
        "compute.2": "↻ backoff, exit 1",
        "api": "● ready 12m04s",
        "compute.1": "● ready",
        "volume": "○ stopped",
        "data": "group",
    }


def test_the_likely_ones_for_a_verb_come_first() -> None:
    assert offered("start ")[0] == "volume"
    assert offered("why ")[:2] == ["compute", "compute.2"]


def test_what_was_given_is_not_offered_again() -> None:
    assert "api" not in offered("stop api ")
    assert "volume" in offered("stop api ")


def test_options_and_their_values_are_completed_by_position() -> None:
    assert "--since" in offered("logs --si")
    assert offered("wait --for ") == ["ready", "stopped", "done"]
    assert "api" in offered("logs --since 5m ")
    assert "USR1" in offered("signal ")
    assert "api" in offered("signal USR1 ")
    assert "status" in offered("help sta")
    assert offered("watch restart vol") == ["volume"]


def test_letters_in_order_find_a_name_too() -> None:
    assert offered("restart cp2") == ["compute.2"]
    assert is_subsequence("ap", "nova-api")
    assert not is_subsequence("pa", "ap")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status --json | jq .", ("status --json", "jq .")),
        ("logs -g 'a|b'", ("logs -g 'a|b'", None)),
        ("logs -g 'a|b' | wc -l", ("logs -g 'a|b'", "wc -l")),
        ("status", ("status", None)),
    ],
)
def test_a_pipe_is_one_only_outside_quotes(line: str, expected: tuple[str, str | None]) -> None:
    assert split_pipe(line) == expected


def test_an_open_quote_is_an_error_with_a_hint() -> None:
    with pytest.raises(UsageError, match="quotation"):
        split_pipe("logs -g 'a")


def script(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "novad", "shell", *options], input=text, capture_output=True, text=True, timeout=30
    )


def test_a_script_stops_at_the_first_failure_with_its_code(daemon: FakeDaemon, project: Path) -> None:
    daemon.answers["status"] = document(process("api"))
    done = script("# a comment\n\nstatus --check\nnonsense\nstatus\n")
    assert done.returncode == 2
    assert done.stdout.count("SERVICE") == 1
    assert "stopped at: nonsense" in done.stderr
    assert script("nonsense\nstatus\n", "-k").stdout.count("SERVICE") == 1


def test_a_script_can_pipe_and_call_the_shell(daemon: FakeDaemon, project: Path) -> None:
    daemon.answers["status"] = document(process("api"))
    done = script("status --json | cat\n!echo from sh\nexit\nnonsense\n")
    first, second = done.stdout.splitlines()
    assert json.loads(first)["project"] == "shop"
    assert second == "from sh"
    assert done.returncode == 0


def test_a_failing_pipe_fails_the_script(daemon: FakeDaemon, project: Path) -> None:
    daemon.answers["status"] = document(process("api"))
    assert script("status | false\n").returncode == 1


def test_the_history_is_private_and_forgets_lines_that_begin_with_a_space(tmp_path: Path) -> None:
    from novad.client.shell.repl import History

    path = tmp_path / "history"
    path.write_text("")
    path.chmod(0o644)
    history = History(path)
    history.append_string("status")
    history.append_string(" logs -g password")
    history.append_string("")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [line for line in path.read_text().splitlines() if line.startswith("+")] == ["+status"]
