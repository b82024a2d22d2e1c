"""kill -9 of the daemon costs nothing: no restart, no orphan, no second copy, no lost line."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from novad.core.spec import Backoff, Log, Probe, Stop, to_json
from novad.host import proc

SLEEP = ("sleep", "600")
Eventually = Callable[[Callable[[], Any]], Any]


def rows(client: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in client.ask("status")["processes"]}


def crash(daemon: Any) -> None:
    daemon.process.kill()
    daemon.process.wait()


def test_a_new_daemon_adopts_what_runs_and_restarts_nothing(daemon: Any) -> None:
    client = daemon.up(*(daemon.spec(name, *SLEEP) for name in "abc"))
    before = {name: row["pid"] for name, row in rows(client).items()}
    crash(daemon)
    assert sorted(daemon.live()) == sorted(before.values())
    assert daemon.start() == "ready"
    after = rows(daemon.client())
    assert {name: row["pid"] for name, row in after.items()} == before
    assert {row["state"] for row in after.values()} == {"ready"}
    assert {row["note"] for row in after.values()} == {"adopted"}


def test_a_definition_that_a_killed_novad_has_half_written_is_gone_after_down(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    with open(f"{daemon.place.run_dir}/cluster.json.new", "w") as file:
        file.write('{"boot')
    client.ask("down")
    assert daemon.process.wait(10) == 0
    assert not os.path.exists(daemon.place.run_dir)


def test_an_adopted_child_that_dies_is_replaced_and_its_exit_code_known(
    daemon: Any, eventually: Eventually
) -> None:
    daemon.up(daemon.spec("a", "sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.01; done"))
    crash(daemon)
    daemon.start()
    client = daemon.client()
    pid = rows(client)["a"]["pid"]
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: rows(client)["a"]["restarts"] == 1 and rows(client)["a"]["pid"])
    [why] = client.ask("why", names=["a"])["processes"]
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
        assert why["exits"][0]["exit_code"] == 42
    else:
        assert why["exits"][0]["exit_code"] is None
    # The kernel shows no environment until the exec is over.
    eventually(lambda: len(set(daemon.live().values())) == 1)


def test_the_output_of_an_adopted_child_is_unbroken(daemon: Any, eventually: Eventually) -> None:
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.002; done"
    daemon.up(daemon.spec("a", "sh", "-c", script))
    eventually(lambda: len(daemon.text("a")) > 20)
    crash(daemon)
    daemon.start()
    seen = len(daemon.text("a"))
    eventually(lambda: len(daemon.text("a")) > seen + 20)
    client = daemon.client()
    client.ask("stop")
    numbers = [int(line) for line in daemon.text("a")]
    assert numbers == list(range(len(numbers)))


def test_who_left_an_adopted_tree_is_killed_with_it(daemon: Any, eventually: Eventually) -> None:
    """Nobody else dies whose death would be the reason to look for it once more."""
    script = "trap '' TERM; (setsid sleep 600 &) ; exec sleep 600"
    daemon.up(daemon.spec("a", "sh", "-c", script, stop=Stop("TERM", 0.2)))
    eventually(lambda: len(daemon.live()) == 2)
    crash(daemon)
    daemon.start()
    assert daemon.client().ask("stop", names=["a"])["survivors"] == []
    assert daemon.live() == {}


def test_down_after_a_kill_of_the_daemon_takes_the_adopted_trees(daemon: Any, eventually: Eventually) -> None:
    script = "trap '' TERM; (setsid sleep 600 &) ; sleep 600 & exec sleep 600"
    daemon.up(daemon.spec("a", "sh", "-c", script, stop=Stop("TERM", 0.5)), daemon.spec("b", *SLEEP))
    eventually(lambda: len(daemon.live()) == 4)
    crash(daemon)
    daemon.start()
    answer = daemon.client().ask("down")
    assert answer["survivors"] == []
    assert daemon.process.wait(10) == 0
    assert daemon.live() == {}
    assert [*os.walk(daemon.place.run_dir)] == []


def test_a_child_that_died_while_nobody_watched_is_started_again(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP), daemon.spec("b", *SLEEP))
    pids = {name: row["pid"] for name, row in rows(client).items()}
    crash(daemon)
    os.kill(pids["a"], signal.SIGKILL)
    eventually(lambda: len(daemon.live()) == 1)
    daemon.start()
    client = daemon.client()
    client.ask("wait", **{"for": "ready"})
    after = rows(client)
    assert after["b"]["pid"] == pids["b"]
    assert after["a"]["pid"] not in (None, pids["a"])
    assert len(daemon.live()) == 2


def test_what_a_leader_left_that_died_unwatched_is_ended_first(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", "sh", "-c", "trap '' TERM; sleep 600 & setsid sleep 600 & wait"))
    eventually(lambda: len(daemon.live()) == 3)
    leader = rows(client)["a"]["pid"]
    crash(daemon)
    os.kill(leader, signal.SIGKILL)
    eventually(lambda: len(daemon.live()) == 2)
    daemon.start()
    client = daemon.client()
    client.ask("wait", **{"for": "ready"})
    assert {mark.rpartition("/")[2] for mark in daemon.live().values()} == {"2"}


def test_what_was_stopped_or_done_or_failed_stays_so(daemon: Any) -> None:
    specs = [
        daemon.spec("a", *SLEEP),
        daemon.spec("b", "true", oneshot=True, restart="no"),
        daemon.spec("c", "false", restart="no"),
        daemon.spec("d", *SLEEP),
    ]
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(*specs)))
    client.ask("wait", names=["a", "b", "d"], **{"for": "ready"})
    client.ask("stop", names=["d"])
    client.ask("wait", names=["c"], **{"for": "stopped"})
    crash(daemon)
    daemon.start()
    states = {name: row["state"] for name, row in rows(daemon.client()).items()}
    assert states == {"a": "ready", "b": "done", "c": "failed", "d": "stopped"}


def test_a_child_that_was_started_and_not_recorded_is_adopted_all_the_same(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    pid = rows(client)["a"]["pid"]
    crash(daemon)
    os.unlink(f"{daemon.place.run_dir}/records/a.json")
    daemon.start()
    client = daemon.client()
    client.ask("wait", **{"for": "ready"})
    assert rows(client)["a"]["pid"] == pid
    assert len(daemon.live()) == 1


def test_an_instance_that_hid_its_mark_and_lost_its_record_is_not_doubled(
    daemon: Any, eventually: Eventually
) -> None:
    """The lock alone still says that it is alive: the second copy waits, and the holder is named."""
    client = daemon.up(daemon.spec("a", "env", "-i", "/bin/sleep", "600", backoff=Backoff(0.05, 0.1)))
    pid = rows(client)["a"]["pid"]
    crash(daemon)
    try:
        os.unlink(f"{daemon.place.run_dir}/records/a.json")
        daemon.start()
        client = daemon.client()
        client.ask("start", names=["a"])
        note = eventually(lambda: rows(client)["a"]["note"])
        assert f"an earlier instance is still alive: pid {pid}" in note
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_pid_that_means_another_process_now_is_not_adopted(daemon: Any) -> None:
    """The record is made to name this very test: alive, but not the child that was started."""
    daemon.up(daemon.spec("a", *SLEEP))
    crash(daemon)
    path = f"{daemon.place.run_dir}/records/a.json"
    with open(path) as file:
        record = json.load(file)
    os.kill(record["identity"]["pid"], signal.SIGKILL)
    record["identity"]["pid"] = os.getpid()
    with open(path, "w") as file:
        json.dump(record, file)
    daemon.start()
    client = daemon.client()
    client.ask("wait", **{"for": "ready"})
    assert rows(client)["a"]["pid"] != os.getpid()


def test_records_of_another_boot_start_nothing(daemon: Any) -> None:
    daemon.up(daemon.spec("a", *SLEEP))
    crash(daemon)
    for pid in daemon.live():
        os.kill(pid, signal.SIGKILL)
    path = f"{daemon.place.run_dir}/cluster.json"
    with open(path) as file:
        data = json.load(file)
    with open(path, "w") as file:
        json.dump({**data, "boot_id": "another"}, file)
    daemon.start()
    assert daemon.client().ask("status")["processes"] == []


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_moment_the_next_daemon_converges(
    daemon: Any, eventually: Eventually, seed: int
) -> None:
    """A burst of commands, the daemon killed somewhere in it: nothing is doubled, nothing is lost."""
    dice = random.Random(seed)
    names = ["a", "b", "c", "d"]
    client = daemon.up(*(daemon.spec(name, *SLEEP) for name in names))
    for _ in range(4):
        for _ in range(dice.randrange(1, 6)):
            client.send(dice.choice(["restart", "stop", "start"]), names=[dice.choice(names)])
        if dice.random() < 0.5:
            os.sched_yield()
        crash(daemon)
        marks = list(daemon.live().values())
        assert len({mark.split("/")[1] for mark in marks}) == len(marks), "two live instances"
        assert daemon.start() == "ready"
        client = daemon.client()
        client.ask("start", names=names)
        client.ask("wait", **{"for": "ready"})
        marks = list(daemon.live().values())
        assert sorted(mark.split("/")[1] for mark in marks) == names
    assert client.ask("down")["survivors"] == []
    assert daemon.live() == {}


def test_readiness_that_was_announced_to_nobody_does_not_cost_a_restart(daemon: Any) -> None:
    spec = daemon.spec("a", *SLEEP, ready=Probe(notify=True), ready_timeout_s=20, start_s=0.05)
    daemon.start()
    client = daemon.client()
    client.ask("up", cluster=to_json(daemon.cluster(spec)))
    crash(daemon)
    daemon.start()
    client = daemon.client()
    assert client.ask("wait", **{"for": "ready"}) == {"met": True}
    assert rows(client)["a"]["restarts"] == 0
    assert proc.is_alive(rows(client)["a"]["pid"])


def test_why_still_knows_the_exits_that_an_earlier_daemon_saw(daemon: Any, eventually: Eventually) -> None:
    client = daemon.up(daemon.spec("a", "sh", "-c", "echo out of luck >&2; sleep 600"))
    eventually(lambda: daemon.text("a", "e"))
    os.kill(rows(client)["a"]["pid"], signal.SIGKILL)
    eventually(lambda: rows(client)["a"]["restarts"] == 1)
    crash(daemon)
    daemon.start()
    [why] = daemon.client().ask("why")["processes"]
    assert (why["name"], why["exits"][0]["signal"], why["exits"][0]["lines"]) == ("a", "SIGKILL", ["out of luck"])


def test_an_upgrade_restarts_no_child_and_loses_no_line(daemon: Any, eventually: Eventually) -> None:
    script = "i=0; while :; do printf 'line '; sleep 0.001; echo $i; i=$((i+1)); done"
    client = daemon.up(daemon.spec("a", "sh", "-c", script), daemon.spec("b", *SLEEP))
    before = {name: row["pid"] for name, row in rows(client).items()}
    for _ in range(3):
        client.ask("upgrade")
        client = eventually(lambda: reconnect(daemon))
        assert {name: row["pid"] for name, row in rows(client).items()} == before
        assert client.ask("ping")["pid"] == daemon.process.pid
        assert {row["note"] for row in rows(client).values()} == {None}
    os.kill(before["b"], signal.SIGKILL)
    eventually(lambda: rows(client)["b"]["restarts"] == 1)
    [why] = client.ask("why")["processes"]
    assert why["exits"][0]["signal"] == "SIGKILL"
    client.ask("stop")
    # The last line may have been cut by the stop itself.
    lines = daemon.text("a")[:-1]
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert len(lines) > 100


def test_an_upgrade_takes_no_terminal_away(daemon: Any, eventually: Eventually) -> None:
    script = "i=0; while :; do printf 'line '; sleep 0.001; echo $i; i=$((i+1)); done"
    log = Log(f"{daemon.place.log_dir}/a.log", pty=True)
    client = daemon.up(daemon.spec("a", "sh", "-c", script, log=log))
    pid = rows(client)["a"]["pid"]
    for _ in range(3):
        client.ask("upgrade")
        client = eventually(lambda: reconnect(daemon))
    seen = len(daemon.text("a"))
    eventually(lambda: len(daemon.text("a")) > seen + 20)
    assert rows(client)["a"]["pid"] == pid
    client.ask("stop")
    lines = daemon.text("a")[:-1]
    assert lines == [f"line {number}" for number in range(len(lines))]
    client.ask("start", names=["a"])
    eventually(lambda: rows(client)["a"]["state"] == "ready")


def reconnect(daemon: Any) -> Any:
    try:
        client = daemon.client()
        client.ask("ping")
    except (OSError, EOFError):
        return None
    return client


def test_code_that_does_not_start_is_not_upgraded_to(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{daemon.place.dir}:{os.getcwd()}")
    client = daemon.up(daemon.spec("a", *SLEEP))
    os.makedirs(f"{daemon.place.dir}/novad")
    with open(f"{daemon.place.dir}/novad/__init__.py", "w") as file:
        file.write("this is no Python")
    with pytest.raises(Exception, match="the new code does not start"):
        client.ask("upgrade")
    assert rows(client)["a"]["state"] == "ready"
