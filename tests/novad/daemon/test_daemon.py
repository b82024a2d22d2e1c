"""The daemon over its socket: start, stop, restart, order, trees, logs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from novad.core.spec import Backoff, Health, Log, Port, Probe, Stop, TcpProbe, to_json
from novad.host import proc
from tests.novad.daemon.running import Refused

SLEEP = ("sleep", "600")
Eventually = Callable[[Callable[[], Any]], Any]


def row(client: Any, name: str) -> dict[str, Any]:
    return client.ask("status", names=[name])["processes"][0]


def test_up_and_down_leave_nothing(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP), daemon.spec("b", *SLEEP, after=["a"]))
    assert len(daemon.live()) == 2
    answer = client.ask("down")
    assert {item["name"] for item in answer["stopped"]} == {"a", "b"}
    assert answer["survivors"] == []
    assert daemon.process.wait(5) == 0
    assert daemon.live() == {}
    assert [*os.walk(daemon.place.run_dir)] == []


def test_a_killed_child_is_replaced_and_never_doubled(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP, backoff=Backoff(reset_after_s=0)))
    pids = set()
    for _ in range(20):
        pid = row(client, "a")["pid"]
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda dead=pid: row(client, "a")["pid"] not in (None, dead))
        # In the middle of its exec /proc shows no environment yet.
        assert len(eventually(daemon.live)) == 1
        client.ask("wait", **{"for": "ready"})
    assert len(pids) == 20
    assert row(client, "a")["restarts"] == 20


def test_dependencies_start_first_and_stop_last(daemon: Any) -> None:
    specs = [
        daemon.spec("c", *SLEEP, after=["b:ready"]),
        daemon.spec("b", *SLEEP, after=["a:ready"]),
        daemon.spec("a", *SLEEP),
    ]
    client = daemon.up(*specs)
    watcher = daemon.client()
    watcher.ask("subscribe", states=True)
    client.ask("down")
    order = []
    while (event := watcher.event())["type"] != "ended":
        if event["type"] == "state" and event["state"] == "stopped":
            order.append(event["name"])
    assert order == ["c", "b", "a"]
    starts = [daemon.log(name)[0][:27] for name in ("a", "b", "c")]
    assert starts == sorted(starts)


def test_a_stop_takes_the_whole_tree(daemon: Any, eventually: Eventually) -> None:
    script = "trap '' TERM; (setsid sleep 600 &) ; sleep 600 & exec sleep 600"
    client = daemon.up(daemon.spec("a", "sh", "-c", script, stop=Stop("TERM", 0.5)))
    eventually(lambda: len(daemon.live()) == 3)
    answer = client.ask("stop", names=["a"])
    assert answer["survivors"] == []
    assert daemon.live() == {}


def test_what_a_crashed_leader_leaves_is_gone_before_its_successor_runs(
    daemon: Any, eventually: Eventually
) -> None:
    script = "trap '' TERM; setsid sleep 600 & sleep 600 & wait; wait"
    client = daemon.up(daemon.spec("a", "sh", "-c", script))
    eventually(lambda: len(daemon.live()) == 3)
    os.kill(row(client, "a")["pid"], signal.SIGKILL)
    eventually(lambda: row(client, "a")["restarts"] == 1 and row(client, "a")["pid"])
    assert {mark.rpartition("/")[2] for mark in daemon.live().values()} == {"2"}


def test_an_escapee_with_a_cleared_environment_is_found(daemon: Any, eventually: Eventually) -> None:
    script = "env -i setsid sleep 61.7 & exec sleep 600"
    client = daemon.up(daemon.spec("a", "sh", "-c", script))
    leader = row(client, "a")["pid"]

    def escapees() -> list[int]:
        return [pid for pid in proc.all_pids() if proc.command(pid) == "sleep 61.7"]

    eventually(escapees)
    assert leader
    client.ask("stop", names=["a"])
    assert escapees() == []


def test_a_missing_command_fails_at_once_names_its_path_and_does_not_loop(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(daemon.spec("a", "/no/such/run"))))
    answer = client.ask("wait", **{"for": "ready"})
    assert answer["met"] is False
    assert answer["unmet"][0]["note"] == "cannot start /no/such/run: no such file"
    assert row(client, "a")["restarts"] == 0


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("#!/no/such/interpreter\n", 0o755, "its interpreter /no/such/interpreter does not exist"),
        ("#!/bin/sh\n", 0o644, "permission denied"),
        ("\x00\x01\x02", 0o755, "neither a program nor a script"),
    ],
)
def test_each_way_not_to_start_is_named(daemon: Any, content: str, mode: int, said: str) -> None:
    path = f"{daemon.place.dir}/run"
    with open(path, "w") as file:
        file.write(content)
    os.chmod(path, mode)
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(daemon.spec("a", path))))
    note = client.ask("wait", **{"for": "ready"})["unmet"][0]["note"]
    assert said in note
    assert path in note


@pytest.mark.parametrize("fields", [{"nice": 5}, {"limits": {"as": 2**33}}, {"log": "pty"}, {"ports": "listen"}])
@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("#!/no/such/interpreter\n", 0o755, "its interpreter /no/such/interpreter does not exist"),
        ("#!/bin/sh\n", 0o644, "permission denied"),
        ("echo no first line\n", 0o755, "neither a program nor a script"),
    ],
)
def test_who_is_born_by_way_of_a_shell_fails_no_later(
    daemon: Any, fields: dict[str, Any], content: str, mode: int, said: str
) -> None:
    path = f"{daemon.place.dir}/run"
    with open(path, "w") as file:
        file.write(content)
    os.chmod(path, mode)
    if "log" in fields:
        fields = {"log": Log(f"{daemon.place.log_dir}/a.log", pty=True)}
    if "ports" in fields:
        with socket.create_server(("127.0.0.1", 0)) as free:
            fields = {"ports": {"http": Port(free.getsockname()[1], listen=True)}}
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(daemon.spec("a", path, **fields))))
    note = client.ask("wait", **{"for": "ready"})["unmet"][0]["note"]
    assert said in note
    assert path in note
    assert row(client, "a")["restarts"] == 0


def test_a_limit_above_the_hard_one_is_said_and_ends_nobody(daemon: Any) -> None:
    daemon.through = ["prlimit", "--stack=8388608:8388608"]
    client = daemon.up(daemon.spec("other", *SLEEP), daemon.spec("a", "true", oneshot=True))
    wrong = daemon.spec("a", *SLEEP, limits={"stack": 2**30})
    with pytest.raises(Refused, match=r"cannot start 'sleep': .*limit"):
        client.ask("reload", cluster=to_json(daemon.cluster(daemon.spec("other", *SLEEP), wrong)), dry_run=False)
    assert row(client, "other")["restarts"] == 0
    assert len(daemon.live()) == 1


def test_who_did_not_start_is_told_apart_from_who_ran_before(daemon: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        daemon.start()
        client = daemon.client()
        fields = {"ports": {"http": Port(port)}, "backoff": Backoff(0.01, 0.02)}
        first = daemon.spec("a", "sh", "-c", "echo from the first run >&2; exec sleep 600")
        client.ask("up", cluster=to_json(daemon.cluster(first)))
        client.ask("wait", **{"for": "ready"})
        changed = replace(first, **fields, argv=("sleep", "600"))
        with pytest.raises(Refused, match="did not get ready"):
            client.ask("reload", cluster=to_json(daemon.cluster(changed)), dry_run=False)
        client.ask("stop")
        client.ask("reload", cluster=to_json(daemon.cluster(changed)), dry_run=False)
        client.ask("start", names=["a"])
        assert client.ask("wait", **{"for": "ready"})["met"] is False
        [why] = client.ask("why", names=["a"])["processes"]
    assert [item["lines"] for item in why["exits"][:5]] == [[]] * 5
    assert why["repeating"].startswith(f"port {port} (http) is taken by pid {os.getpid()}")
    assert "from the first run" not in why["repeating"]


def test_a_change_that_needs_no_restart_lets_who_has_failed_try_again(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    script = "exec sleep 600"
    bad = daemon.spec("a", "sh", "-c", script, ready=Probe(exec=("false",)), ready_timeout_s=0.1, restart="no")
    client.ask("up", cluster=to_json(daemon.cluster(bad)))
    assert client.ask("wait", **{"for": "ready"})["met"] is False
    good = replace(bad, ready=Probe(exec=("true",)), ready_timeout_s=20.0)
    client.ask("reload", cluster=to_json(daemon.cluster(good)), dry_run=False)
    assert row(client, "a")["state"] == "ready"


def test_who_is_stopped_for_a_fault_has_not_crashed(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    never = {"ready": Probe(exec=("false",)), "ready_timeout_s": 0.05, "backoff": Backoff(0.01, 0.02)}
    client.ask("up", cluster=to_json(daemon.cluster(daemon.spec("a", *SLEEP, **never))))
    client.ask("wait", **{"for": "ready"})
    [why] = client.ask("why", names=["a"])["processes"]
    assert (why["state"], why["repeating"]) == ("failed", None)
    assert [line for line in daemon.text("a", "n") if "same crash" in line] == []


def test_crashes_that_differ_are_not_called_the_same(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    spec = daemon.spec("a", "sh", "-c", "echo $$ >&2; exit 3", backoff=Backoff(0.01, 0.02))
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    client.ask("wait", **{"for": "ready"})
    [why] = client.ask("why")["processes"]
    assert (why["state"], why["repeating"]) == ("failed", None)


def test_a_crash_loop_gives_up_and_tells_why(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    spec = daemon.spec("a", "sh", "-c", "echo trying; echo bad luck >&2; exit 3", backoff=Backoff(0.01, 0.02))
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    assert client.ask("wait", **{"for": "ready"})["met"] is False
    [why] = client.ask("why")["processes"]
    assert why["state"] == "failed"
    assert [item["exit_code"] for item in why["exits"]] == [3] * 5
    assert [item["lines"] for item in why["exits"]] == [["bad luck"]] * 5
    assert why["repeating"] == "exit 3: bad luck"
    assert sum("the same crash again and again: exit 3: bad luck" in line for line in daemon.log("a")) == 3
    assert daemon.text("a") == ["trying"] * 5


def test_the_last_line_before_a_death_is_there_even_without_a_newline(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    spec = daemon.spec("a", "sh", "-c", "echo first; printf last >&2; kill -9 $$", restart="no")
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    client.ask("wait", **{"for": "ready"})
    assert daemon.text("a") == ["first"]
    assert daemon.text("a", "e") == ["last"]
    assert daemon.log("a")[-2].endswith("n killed by SIGKILL after 0.00 s") or "SIGKILL" in daemon.log("a")[-2]


def test_readiness_by_notify_tcp_and_log_together(daemon: Any) -> None:
    program = """
import os, socket
s = socket.create_server(("127.0.0.1", 0))
print("listening on", s.getsockname()[1], flush=True)
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.sendto(b"READY=1\\nSTATUS=open for business", os.environ["NOTIFY_SOCKET"])
while True:
    s.accept()
"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = program.replace('"127.0.0.1", 0', f'"127.0.0.1", {port}')
    probe = Probe(notify=True, tcp=TcpProbe("127.0.0.1", port), log="listening on [0-9]+")
    client = daemon.up(daemon.spec("a", sys.executable, "-c", program, ready=probe))
    assert row(client, "a")["status_text"] == "open for business"


def test_readiness_by_a_newline_on_a_descriptor_as_s6_has_it(daemon: Any, eventually: Eventually) -> None:
    script = "printf starting >&5; sleep 0.2; echo >&5; exec 5>&-; echo said; exec sleep 600"
    client = daemon.up(daemon.spec("a", "sh", "-c", script, ready=Probe(notify_fd=5)))
    eventually(lambda: daemon.text("a") == ["said"])
    assert row(client, "a")["ready_in_s"] > 0.1
    silent = daemon.spec("b", "sh", "-c", "exec 5>&-; exec sleep 600", ready=Probe(notify_fd=5), ready_timeout_s=0.3,
                         restart="no")  # fmt: skip
    client.ask("reload", cluster=to_json(daemon.cluster(daemon.spec("a", *SLEEP, ready=Probe(notify_fd=5)), silent)),
               dry_run=True)  # fmt: skip
    with pytest.raises(Exception, match=r"b did not get ready .* not ready within 0\.3 s"):
        client.ask("reload", cluster=to_json(daemon.cluster(
            daemon.spec("a", "sh", "-c", script, ready=Probe(notify_fd=5)), silent)))  # fmt: skip


def test_a_service_says_that_it_reloads_and_for_how_long(daemon: Any, eventually: Eventually) -> None:
    program = """
import os, signal, socket
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say = lambda text: n.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
signal.signal(signal.SIGHUP, lambda *_: say("RELOADING=1"))
signal.signal(signal.SIGUSR1, lambda *_: say("READY=1"))
say("READY=1")
while True:
    signal.pause()
"""
    client = daemon.up(daemon.spec("a", sys.executable, "-c", program, ready=Probe(notify=True)))
    client.ask("signal", names=["a"], signal="HUP")
    eventually(lambda: row(client, "a")["status_text"] == "reloading")
    assert row(client, "a")["state"] == "ready"
    client.ask("signal", names=["a"], signal="USR1")
    eventually(lambda: row(client, "a")["status_text"] is None)


def test_a_notification_of_a_stranger_changes_nothing(daemon: Any) -> None:
    daemon.start()
    client = daemon.client()
    spec = daemon.spec("a", *SLEEP, ready=Probe(notify=True), ready_timeout_s=0.3, restart="no")
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1", f"{daemon.place.run_dir}/notify")
    assert client.ask("wait", **{"for": "ready"})["met"] is False
    assert row(client, "a")["note"] == "not ready within 0.3 s"


def test_an_unhealthy_process_is_restarted_and_told_why(daemon: Any, eventually: Eventually) -> None:
    flag = f"{daemon.place.dir}/sick"
    health = Health(Probe(exec=("test", "!", "-e", flag)), period_s=0.05, failures=3)
    client = daemon.up(daemon.spec("a", *SLEEP, health=health))
    first = row(client, "a")["pid"]
    open(flag, "w").close()
    eventually(lambda: row(client, "a")["restarts"] == 1)
    os.unlink(flag)
    client.ask("wait", **{"for": "ready"})
    assert row(client, "a")["pid"] != first
    assert any("unhealthy 3 times in a row: test: exit 1" in line for line in daemon.log("a"))


STUCK = """
import signal, sitecustomize, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def wait_for_godot():
    print("waiting", flush=True)
    while True:
        time.sleep(60)
wait_for_godot()
"""


def test_a_python_process_that_does_not_stop_shows_its_stacks_before_it_is_killed(daemon: Any) -> None:
    spec = daemon.spec("a", sys.executable, "-c", STUCK, ready=Probe(log="waiting"), stop=Stop("TERM", 0.5))
    client = daemon.up(spec)
    client.ask("stop")
    assert any("in wait_for_godot" in line for line in daemon.text("a", "e"))
    assert any("the stacks of" in line for line in daemon.log("a"))


def test_a_sitecustomize_of_the_project_is_loaded_all_the_same(daemon: Any) -> None:
    with open(f"{daemon.place.dir}/sitecustomize.py", "w") as file:
        file.write("print('the own one', flush=True)\n")
    program = "import sys; print([p for p in sys.path if 'injected' in p], flush=True)"
    spec = daemon.spec("a", sys.executable, "-c", program, oneshot=True, env={"PYTHONPATH": daemon.place.dir})
    daemon.up(spec)
    assert daemon.text("a") == ["the own one", "[]"]


def test_a_program_that_needs_a_terminal_gets_one(daemon: Any) -> None:
    program = """
import os, sys
print(os.isatty(0), os.isatty(1), os.isatty(2), os.get_terminal_size().columns)
print(open("/dev/tty").fileno() > 2, os.tcgetpgrp(1) == os.getpgrp(), flush=True)
print("done", flush=True)
import time; time.sleep(600)
"""
    log = Log(f"{daemon.place.log_dir}/a.log", pty=True)
    client = daemon.up(daemon.spec("a", sys.executable, "-c", program, log=log, ready=Probe(log="done")))
    assert daemon.text("a")[:3] == ["True True True 120", "True True", "done"]
    client.ask("down")
    assert daemon.live() == {}


def test_probed_starts_run_as_many_at_once_as_the_machine_has_room_for(
    daemon: Any, eventually: Eventually
) -> None:
    room = 4 * (os.cpu_count() or 1)
    specs = [daemon.spec(f"a.{n}", *SLEEP, ready=Probe(notify=True)) for n in range(room + 3)]
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(*specs, daemon.spec("b", *SLEEP))))
    states = [item["state"] for item in client.ask("status")["processes"]]
    assert states == ["starting"] * room + ["waiting"] * 3 + ["starting"]
    client.ask("stop", names=["a.0", "a.1"])
    states = [item["state"] for item in client.ask("status")["processes"]]
    assert states[room : room + 3] == ["starting", "starting", "waiting"]


@pytest.mark.parametrize("length", [65535, 65536, 65537, 100_000, 131_072, 300_000])
def test_a_line_over_64_kib_is_split_and_marked_and_no_byte_of_it_is_lost(daemon: Any, length: int) -> None:
    program = f"import os; os.write(1, b'before\\n' + b'x' * {length} + b'\\nafter\\n')"
    daemon.up(daemon.spec("a", sys.executable, "-c", program, oneshot=True))
    first, *pieces, last = daemon.text("a")
    assert (first, last) == ("before", "after")
    assert "".join(piece.removesuffix(" [line split]") for piece in pieces) == "x" * length
    assert max(map(len, pieces)) <= 65536 + len(" [line split]")
    assert all(piece.endswith(" [line split]") for piece in pieces[:-1])


def test_limits_and_nice_hold_from_the_birth_of_the_child(daemon: Any) -> None:
    script = "nice; ulimit -S -s; ulimit -S -v; ulimit -S -n; ulimit -S -c; cat; exec sleep 600"
    limits = {"nofile": 123, "core": 0, "stack": 2**20, "as": 2**31}
    daemon.up(daemon.spec("a", "sh", "-c", script, limits=limits, nice=5, ready=Probe(log="^0$")))
    assert daemon.text("a")[:5] == ["5", "1024", "2097152", "123", "0"]


def test_a_child_may_have_fewer_descriptors_than_novad_has_itself(daemon: Any) -> None:
    script = "ulimit -S -n; exec sleep 600"
    specs = [daemon.spec(f"a.{number}", *SLEEP) for number in range(1, 9)]
    daemon.up(*specs, daemon.spec("few", "sh", "-c", script, limits={"nofile": 20}, ready=Probe(log="^20$")))
    assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) > 20 + 16


def test_a_dependent_that_wants_it_is_restarted_with_what_it_needs(daemon: Any, eventually: Eventually) -> None:
    specs = [
        daemon.spec("db", *SLEEP),
        daemon.spec("api", *SLEEP, after=["db"], restart_with=("db",)),
        daemon.spec("web", *SLEEP, after=["db"]),
    ]
    client = daemon.up(*specs)
    before = {name: row(client, name)["pid"] for name in ("db", "api", "web")}
    os.kill(before["db"], signal.SIGKILL)
    eventually(lambda: row(client, "api")["pid"] not in (None, before["api"]))
    assert row(client, "web")["pid"] == before["web"]


def test_a_child_starts_with_a_clean_state(daemon: Any) -> None:
    script = (
        "ls -l /proc/self/fd | wc -l; grep -E 'SigIgn|SigBlk' /proc/self/status; cat; echo done; exec sleep 600"
    )
    client = daemon.up(daemon.spec("a", "sh", "-c", script, ready=Probe(log="^done$")))
    lines = daemon.text("a")
    # `ls` has 0, 1, 2, the lock and the directory open; one line more is the total.
    assert int(lines[0]) == 6
    assert all(int(line.split()[1], 16) == 0 for line in lines[1:3])
    pid = row(client, "a")["pid"]
    assert os.getsid(pid) == pid


def test_several_clients_may_ask_at_once_and_a_stop_is_answered_when_it_is_over(daemon: Any) -> None:
    slow = daemon.spec("a", "sh", "-c", "trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done")
    client = daemon.up(slow)
    other = daemon.client()
    number = client.send("stop", names=["a"])
    assert other.ask("status")["processes"][0]["state"] in ("stopping", "ready")
    assert client.answer(number)["stopped"][0]["name"] == "a"
    assert daemon.live() == {}


def test_garbage_ends_only_its_own_connection(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    for garbage in (b"\xff\xfe\n", b"[" * 100000 + b"\n", b'{"id": 1}\n', b"x" * (1 << 20) + b"xx"):
        bad = daemon.client()
        bad.raw(garbage)
        assert bad.is_cut_off()
    assert client.ask("ping")["pid"] == daemon.process.pid


def test_an_unknown_name_is_refused_with_the_nearest(daemon: Any) -> None:
    client = daemon.up(daemon.spec("api", *SLEEP))
    with pytest.raises(Exception, match="no_such_service") as caught:
        client.ask("stop", names=["ap"])
    assert caught.value.args[2] == "did you mean api?"


def test_a_lease_that_ends_takes_the_cluster_down(daemon: Any, eventually: Eventually) -> None:
    daemon.up(daemon.spec("a", *SLEEP))
    owner = daemon.client()
    owner.ask("lease")
    owner.close()
    assert daemon.process.wait(10) == 0
    assert daemon.live() == {}


def test_term_takes_the_daemon_down_and_leaves_nothing(daemon: Any) -> None:
    daemon.up(daemon.spec("a", *SLEEP))
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert daemon.live() == {}


def test_a_second_daemon_finds_the_place_taken(daemon: Any) -> None:
    daemon.up(daemon.spec("a", *SLEEP))
    first = daemon.process
    assert daemon.start() == "busy"
    assert daemon.process.wait(10) == 0
    daemon.process = first


def test_reload_restarts_only_what_changed(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP), daemon.spec("b", *SLEEP), daemon.spec("c", *SLEEP))
    before = {name: row(client, name)["pid"] for name in "abc"}
    fresh = daemon.cluster(daemon.spec("a", *SLEEP), daemon.spec("b", "sleep", "601"), daemon.spec("d", *SLEEP))
    answer = client.ask("reload", cluster=to_json(fresh))
    assert (answer["added"], answer["removed"], answer["unchanged"]) == (["d"], ["c"], ["a"])
    assert answer["changed"][0]["fields"] == [{"key": "argv", "old": ["sleep", "600"], "new": ["sleep", "601"]}]
    client.ask("wait", **{"for": "ready"})
    eventually(lambda: len(client.ask("status")["processes"]) == 3)
    assert row(client, "a")["pid"] == before["a"]
    assert row(client, "b")["pid"] != before["b"]
    assert len(daemon.live()) == 3


def test_a_process_that_a_signal_has_stopped_is_paused_until_it_goes_on(
    daemon: Any, eventually: Eventually
) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    client.ask("signal", names=["a"], signal="STOP")
    eventually(lambda: row(client, "a")["note"] == "paused")
    assert row(client, "a")["state"] in ("starting", "ready")
    client.ask("signal", names=["a"], signal="CONT")
    eventually(lambda: row(client, "a")["note"] is None)
    # By somebody else, and before the death of novad.
    os.kill(row(client, "a")["pid"], signal.SIGSTOP)
    eventually(lambda: row(client, "a")["note"] == "paused")
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.start() == "ready"
    client = daemon.client()
    assert row(client, "a")["note"] == "paused, adopted"
    os.kill(row(client, "a")["pid"], signal.SIGCONT)
    eventually(lambda: row(client, "a")["note"] == "adopted")


def test_a_reload_whose_services_do_not_get_ready_is_taken_back(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP), daemon.spec("b", *SLEEP), daemon.spec("c", *SLEEP))
    bad = daemon.cluster(daemon.spec("a", "sleep", "601"), daemon.spec("b", "false"), daemon.spec("d", *SLEEP))
    with pytest.raises(
        Exception, match="b did not get ready with its new definition: exit 1; the old one is back"
    ):
        client.ask("reload", cluster=to_json(bad))
    client.ask("wait", **{"for": "ready"})
    eventually(lambda: len(daemon.live()) == 3)
    rows = {item["name"]: item for item in client.ask("status")["processes"]}
    assert {name: item["state"] for name, item in rows.items()} == dict.fromkeys("abc", "ready")
    commands = {proc.command(pid) for pid in daemon.live()}
    assert commands == {"sleep 600"}


def test_lines_are_followed_without_a_gap(daemon: Any) -> None:
    spec = daemon.spec("a", "sh", "-c", "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; exec sleep 600")
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(spec)), start=False)
    watcher = daemon.client()
    offset = watcher.ask("subscribe", states=False, lines=["a"])["offsets"]["a"]
    client.ask("start", names=["a"])
    pushed = ""
    while " o 499\n" not in pushed:
        event = watcher.event()
        assert event["type"] == "lines"
        pushed += event["text"]
    # Lines are told as they come; with the answer to anything else they are in the file.
    client.ask("ping")
    with open(f"{daemon.place.log_dir}/a.log") as file:
        assert file.read()[offset:].startswith(pushed)
    assert [line[30:] for line in pushed.splitlines() if line[28] == "o"] == [str(i) for i in range(500)]


def test_the_daemon_sleeps_when_nothing_happens(daemon: Any, eventually: Eventually) -> None:
    daemon.up(*(daemon.spec(f"a.{n}", *SLEEP) for n in range(20)))
    eventually(lambda: proc.stat(daemon.process.pid).state == "S")

    def switches() -> int:
        with open(f"/proc/{daemon.process.pid}/status") as file:
            return int(next(line for line in file if line.startswith("voluntary")).split()[1])

    before = switches()
    # The subject is the absence of events, which no event can announce.
    time.sleep(2)
    assert switches() - before == 0


def test_a_definition_that_cannot_be_written_changes_nothing(daemon: Any) -> None:
    """As on a full disk; a directory in the way has the same effect."""
    daemon.start()
    client = daemon.client()
    in_the_way = f"{daemon.place.run_dir}/cluster.json.new"
    os.mkdir(in_the_way)
    cluster = to_json(daemon.cluster(daemon.spec("a", *SLEEP)))
    with pytest.raises(Refused, match="cannot write the cluster's definition"):
        client.ask("up", cluster=cluster)
    assert client.ask("status")["processes"] == []
    os.rmdir(in_the_way)
    client.ask("up", cluster=cluster)
    os.mkdir(in_the_way)
    with pytest.raises(Refused, match="nothing was changed"):
        client.ask("reload", cluster=to_json(daemon.cluster(daemon.spec("b", *SLEEP))))
    assert [item["name"] for item in client.ask("status")["processes"]] == ["a"]
    os.rmdir(in_the_way)


def test_a_log_that_somebody_removed_begins_anew(daemon: Any, eventually: Eventually) -> None:
    daemon.up(daemon.spec("a", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"))
    eventually(lambda: len(daemon.text("a")) > 3)
    shutil.rmtree(daemon.place.log_dir)
    first = eventually(lambda: os.path.exists(f"{daemon.place.log_dir}/a.log") and daemon.text("a"))[0]
    assert int(first) > 3


def test_a_line_that_is_still_young_is_not_split_because_others_before_it_were_unfinished(
    daemon: Any, eventually: Eventually
) -> None:
    daemon.up(daemon.spec("a", "sh", "-c", "while :; do printf 'a\\nb'; sleep 0.01; done"))
    began_s = time.monotonic()
    eventually(lambda: time.monotonic() - began_s > 2.5)
    assert set(daemon.text("a")[1:]) == {"ba"}


def test_a_follower_that_was_too_slow_learns_of_its_gap_though_no_line_comes_after_it(daemon: Any) -> None:
    flood = daemon.spec("flood", "seq", "1000000", oneshot=True, restart="no", autostart=False)
    assert daemon.start() == "ready"
    client, follower = daemon.client(), daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(flood)), start=False)
    follower.ask("subscribe", states=False, lines=["flood"])
    client.ask("start", names=["flood"])
    assert client.ask("wait", **{"for": "done"}) == {"met": True}
    shown = skipped = 0
    while shown + skipped < 1_000_000:
        event = follower.event()
        shown += event["text"].count("\n") if event["type"] == "lines" else 0
        skipped += event["lines"] if event["type"] == "skipped" else 0
    assert skipped > 0


def test_a_stop_is_answered_also_where_somebody_starts_the_service_again_meanwhile(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", "sh", "-c", "trap 'sleep 0.3; exit' TERM; while :; do sleep 0.01; done"))
    stop = client.send("stop", names=["a"])
    client.ask("start", names=["a"])
    assert [row["name"] for row in client.answer(stop)["stopped"]] == ["a"]
    client.ask("wait", **{"for": "ready"})
