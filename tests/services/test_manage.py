"""nova-manage: its command line as functions, and the installed command against a database and a running system."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from nova import exception, manage, rpc
from nova.testing import ServiceProcess

ROOT = Path(__file__).parent.parent.parent


def nova_manage(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it as its script does, in a process of its own."""
    command = [sys.executable, "-c", "from nova.manage import main; main()", f"--state_path={state}", *words]
    env = {"PYTHONPATH": str(ROOT / "services"), "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, cwd=state)


def out(state: Path, *words: str) -> str:
    done = nova_manage(state, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def failure(state: Path, *words: str) -> tuple[int, str]:
    done = nova_manage(state, *words)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=1", ("a", "1")),
        ("a:=1", ("a", 1)),
        ('b:={"c": [null]}', ("b", {"c": [None]})),
        ("a==", ("a", "=")),
        ("a=", ("a", "")),
    ],
)
def test_a_value_is_text_or_json(word: str, expected: tuple) -> None:
    assert manage._value(word) == expected


@pytest.mark.parametrize("word", ["a", "=1", "a:={", "1a=2", ":=1", "a b=1"])
def test_what_is_neither_is_refused_by_name(word: str) -> None:
    with pytest.raises(exception.Invalid, match=word[:2].replace("{", r"\{")):
        manage._value(word)


REMOTE = """Traceback (most recent call last):
  File "/src/nova/service.py", line 231, in dispatch
    result = found(context, **args)
  File "/src/site-packages/nova/compute/manager.py", line 51, in run_instance
    self.driver.spawn(instance)
  File "/venv/lib/python3.11/site-packages/sqlalchemy/orm.py", line 9, in get
    raise KeyError(key)
KeyError: 7
"""


def test_a_remote_traceback_is_folded_to_the_last_frame_that_is_our_own() -> None:
    error = rpc.RemoteError("KeyError", "7", REMOTE)
    assert manage._words(error, False).splitlines() == [
        "KeyError: 7",
        "  at /src/site-packages/nova/compute/manager.py:51 in run_instance: self.driver.spawn(instance)",
        "  --full shows the whole traceback",
    ]
    assert manage._words(error, True) == f"KeyError: 7\n{REMOTE.rstrip()}"
    assert manage._words(rpc.RemoteError("KeyError", "7", ""), False) == "KeyError: 7"


def test_what_a_caller_knows_says_where_it_was_raised_only_when_asked() -> None:
    error = exception.Invalid("no such zone")
    error.__cause__ = rpc.RemoteError("nova.exception.Invalid", "no such zone", REMOTE)
    assert manage._words(error, False) == "no such zone"
    assert REMOTE.rstrip() in manage._words(error, True)


def test_rpc_without_a_verb_is_a_call() -> None:
    assert manage._with_verb(["rpc", "compute", "x"]) == ["rpc", "call", "compute", "x"]
    assert manage._with_verb(["rpc", "cast", "compute", "x"]) == ["rpc", "cast", "compute", "x"]
    assert manage._with_verb(["rpc", "--help"]) == ["rpc", "--help"]


def test_flags_of_the_services_come_before_the_command() -> None:
    words = ["--state_path", "x", "--verbose", "--host=y", "service", "list", "--json"]
    assert manage._split(words) == (words[:4], words[4:])
    assert manage._split(["--help"]) == ([], ["--help"])


def test_a_table_has_a_column_for_each_key() -> None:
    rows = [{"a_b": 1, "c": None}, {"a_b": "long", "c": True}]
    assert manage.table(rows) == "A b   C\n1     -\nlong  yes\n"
    assert manage.table([]) == ""


def test_users_networks_and_services_of_a_database(tmp_path: Path) -> None:
    made = json.loads(out(tmp_path, "user", "create", "bob", "--project", "p", "--json"))
    assert (made["project"], len(made["access_key"])) == ("p", 20)
    listed = out(tmp_path, "user", "list")
    assert made["access_key"] in listed
    assert made["secret_key"] not in listed
    assert failure(tmp_path, "user", "create", "bob") == (1, "nova-manage: there is a user bob already")
    assert "10.1.0.0/24" in out(tmp_path, "network", "create", "10.1.0.0/24", "--label", "lab")
    assert json.loads(out(tmp_path, "network", "list", "--json"))[0]["free"] == 253
    assert failure(tmp_path, "network", "create", "10.1.0.0/25")[0] == 1
    assert out(tmp_path, "service", "list") == ""


def test_a_wrong_command_line_is_named_and_changes_nothing(tmp_path: Path) -> None:
    assert failure(tmp_path, "service", "lst")[0] == 2
    code, line = failure(tmp_path, "--state_pth=x", "service", "list")
    assert (code, line) == (
        100,
        "nova-manage: unknown flag --state_pth (command line); did you mean --state_path?",
    )
    assert failure(tmp_path, "rpc", "call", "compute", "x", "y") == (
        1,
        "nova-manage: 'y' is not NAME=TEXT or NAME:=JSON",
    )
    code, line = failure(tmp_path, "broker", "queues")
    assert (code, line.endswith("is nova-broker running?")) == (1, True)
    assert not (tmp_path / "nova.sqlite").exists()


def test_a_running_system_is_shown_called_and_asked(tmp_path: Path) -> None:
    env = {"NOVA_STATE_PATH": str(tmp_path)}
    ports = ("--api_listen_port=0", "--objectstore_listen_port=0")
    with ServiceProcess("nova-combined", *ports, env=env) as process:
        process.wait_ready(60.0)
        services = json.loads(out(tmp_path, "service", "list", "--json"))
        assert {row["binary"] for row in services} == {f"nova-{name}" for name in NAMES}
        assert {row["alive"] for row in services} == {":-)"}
        assert json.loads(out(tmp_path, "rpc", "network", "reap_addresses")) == []
        wrong = failure(tmp_path, "rpc", "call", "network", "allocate_fixed_ip", "instance_id:=5")
        assert wrong == (1, "nova-manage: instance 5 is gone; it needs no address")
        assert failure(tmp_path, "rpc", "call", "compute", "_begin") == (
            1,
            "nova-manage: compute has no method '_begin'",
        )
        assert out(tmp_path, "rpc", "cast", "compute", "sync_instances") == ""
        queues = json.loads(out(tmp_path, "broker", "queues", "--json"))
        assert {"compute", "compute.test-host"} <= {row["name"] for row in queues}
        assert 'nova_broker_queue_consumers{vhost="/",queue="compute"} 1' in metrics_of(tmp_path, "nova-combined")
        assert "nova-compute on test-host is disabled" in out(
            tmp_path, "service", "disable", "test-host", "nova-compute"
        )
        assert "disabled  :-)" in out(tmp_path, "service", "list")
        process.signal("TERM")
        assert process.wait() == 0
        assert "XXX" in out(tmp_path, "service", "list")


def metrics_of(folder: Path, binary: str) -> list[str]:
    """What the process says on its admin socket."""
    fd = os.open(folder / "admin", os.O_PATH)  # by way of it, for the path may be too long for unix(7)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20.0)
        link.connect(f"/proc/self/fd/{fd}/{binary}.test-host")
        os.close(fd)
        link.sendall(b"metrics\n")
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    return answer.decode().splitlines()


def test_the_broker_of_a_running_cluster_is_shown(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    env = {"NOVA_STATE_PATH": str(tmp_path), "NOVA_BROKER_PASSWORD_FILE": str(tmp_path / "secret")}
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(
            ServiceProcess("nova-broker", "--port=0", f"--port_file={port_file}", env=env)
        )
        broker.wait_ready(60.0)
        env["NOVA_BROKER"] = f"amqp://127.0.0.1:{port_file.read_text().strip()}/"
        network = stack.enter_context(ServiceProcess("nova-network", env=env))
        network.wait_ready(60.0)
        flags = f"--broker={env['NOVA_BROKER']}", f"--broker_password_file={tmp_path / 'secret'}"
        for _ in range(3):
            assert json.loads(out(tmp_path, *flags, "rpc", "network", "reap_addresses")) == []
        check_queues(tmp_path)
        check_the_rest(tmp_path)
        network.signal("TERM")
        assert network.wait() == 0
        left = {row["name"]: row for row in shown(tmp_path, "queues")}
        assert left["network"]["consumers"] == 0
        assert not [name for name in left if name.startswith("network_fanout")]
        assert shown(tmp_path, "connections") == []


def shown(folder: Path, kind: str, *flags: str) -> list[dict]:
    rows: list[dict] = json.loads(out(folder, "broker", kind, *flags, "--json"))
    return rows


def check_queues(folder: Path) -> None:
    queues = {row["name"]: row for row in shown(folder, "queues", "--interval", "0.2")}
    assert {"network", "network.test-host", "network+suspects", "nova.dead"} <= queues.keys()
    network = queues["network"]
    assert (network["ready"], network["unacked"], network["consumers"]) == (0, 0, 1)
    assert (network["published"], network["delivered"], network["acked"]) == (3, 3, 3)
    assert network["published_per_s"] == 0.0
    table = out(folder, "broker", "queues").splitlines()
    assert table[0].split() == ["Name", "Ready", "Unacked", "Consumers", "In/s", "Out/s"]
    assert any(line.split() == ["network", "0", "0", "1", "0.0", "0.0"] for line in table)
    assert max(map(len, table)) <= 80
    wide = out(folder, "broker", "queues", "--wide", "--interval", "0").splitlines()
    assert wide[0].split()[:3] == ["Vhost", "Name", "Durable"]
    assert any(line.split()[:2] == ["/", "network"] for line in wide)
    for kind in ("exchanges", "bindings", "connections", "consumers"):
        assert max(map(len, out(folder, "broker", kind).splitlines())) <= 80


def check_the_rest(folder: Path) -> None:
    connections = shown(folder, "connections")
    assert "network.test-host" in {row["name"] for row in connections}
    assert {(row["user"], row["state"]) for row in connections} == {("nova", "running")}
    assert all(row["received_bytes"] > 0 and row["sent_bytes"] > 0 for row in connections)
    exchanges = {row["name"]: row for row in shown(folder, "exchanges")}
    assert (exchanges["nova"]["type"], exchanges["network_fanout"]["type"]) == ("topic", "fanout")
    assert exchanges["nova"]["published"] >= 3
    bindings = {(row["source"], row["routing_key"], row["destination"]) for row in shown(folder, "bindings")}
    assert {("nova", "network", "network"), ("nova", "network.test-host", "network.test-host")} <= bindings
    assert {row["queue"] for row in shown(folder, "consumers")} >= {"network", "network.test-host"}


NAMES = ("compute", "network", "scheduler", "volume")
