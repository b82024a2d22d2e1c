"""A service on the queue as the real process that it is, with nova-broker as another."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nova import backdoor, context, flags, green, rpc
from nova.broker import admin
from nova.db import session
from nova.service import Service
from nova.testing import ServiceProcess

FLAGS = flags.FLAGS
CONTEXT = context.RequestContext(user_id="u")

MODULE = """
from nova import flags, green, manager, rpc
FLAGS = flags.FLAGS
flags.DEFINE_float("init_s", 0.0, "seconds that init_host takes")
flags.DEFINE_float("look_s", 0.0, "seconds that a periodic task takes")

class WorkerManager(manager.Manager):
    def init_host(self):
        print("init_host began", flush=True)
        green.sleep(FLAGS.init_s)

    def echo(self, context, value):
        return value

    def slow(self, context, seconds):
        print("slow began", flush=True)
        green.sleep(seconds)
        print("slow ended", flush=True)
        return "done"

    def ask_other(self, context, seconds):
        print("ask began", flush=True)
        green.sleep(seconds)
        return rpc.call(context, "helper", {"method": "echo", "args": {"value": "nested"}}, timeout=5)

    def ask_self(self, context, seconds):
        print("ask began", flush=True)
        green.sleep(seconds)
        return rpc.call(context, "worker", {"method": "echo", "args": {"value": "own"}}, timeout=5)

    def later(self, context, seconds):
        self.spawn(self._later, seconds)

    def _later(self, seconds):
        print("later began", flush=True)
        green.sleep(seconds)
        print("later ended", flush=True)

    @manager.periodic_task(spacing=0.05, run_immediately=True)
    def look(self, context):
        if FLAGS.look_s:
            print("look began", flush=True)
            green.sleep(FLAGS.look_s)

class HelperManager(WorkerManager):
    pass
"""


class World:
    """A broker on a free port, a folder for state, and services that know both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        (folder / "worker.py").write_text(MODULE)
        self.stack = contextlib.ExitStack()

    def broker(self) -> ServiceProcess:
        path = self.folder / "port"
        process = ServiceProcess(
            "nova-broker",
            f"--port={self.port}",
            f"--port_file={path}",
            f"--password_file={self.folder}/password",
            f"--state_path={self.folder}",
        )
        self.stack.enter_context(process)
        process.wait_ready()
        self.port = int(path.read_text())
        self.running_broker = process
        return process

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}/"

    def service(self, name: str = "worker", *arguments: str) -> ServiceProcess:
        process = ServiceProcess(
            f"nova-{name}",
            f"--{name}_manager=worker.{name.capitalize()}Manager",
            f"--broker={self.url}",
            f"--broker_password_file={self.folder}/password",
            f"--state_path={self.folder}",
            *arguments,
            pythonpath=str(self.folder),
        )
        self.stack.enter_context(process)
        return process

    def at_the_broker(self, kind: str) -> list[dict[str, Any]]:
        """What `nova-manage broker KIND` shows."""
        return admin.ask(str(self.folder), kind)

    def row(self, name: str = "worker") -> tuple[Any, ...]:
        with contextlib.closing(sqlite3.connect(self.folder / "nova.sqlite")) as connection:
            query = "SELECT state, report_count, last_seen_up FROM services WHERE binary = ?"
            found: tuple[Any, ...] | None = connection.execute(query, (f"nova-{name}",)).fetchone()
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.stack:
        made.broker()
        with FLAGS.override(broker=made.url, broker_password_file=f"{tmp_path}/password", host="test"):
            yield made
            rpc.cleanup()


def call(method: str, topic: str = "worker", timeout: float = 15, **args: Any) -> Any:
    return rpc.call(CONTEXT, topic, {"method": method, "args": args}, timeout)


def wait_log(service: ServiceProcess, text: str) -> None:
    """As `ServiceProcess.wait_log`, for a test whose own calls need the hub meanwhile."""
    deadline_s = time.monotonic() + 15
    while text not in service.log:
        assert time.monotonic() < deadline_s, service.log
        green.sleep(0.01)


def wait_until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not what():
        assert time.monotonic() < deadline_s
        green.sleep(0.01)


def test_ready_means_that_the_row_is_written_and_calls_are_answered(world: World) -> None:
    service = world.service().wait_ready()
    assert world.row()[0] == "ready"
    assert call("echo", value=[1, {"a": None}]) == [1, {"a": None}]
    assert call("echo", topic="worker.test-host", value=2) == 2
    service.signal("TERM")
    assert service.wait() == 0
    assert world.row()[0] == "stopped"


def test_term_lets_a_call_and_work_in_the_background_end_and_its_caller_has_the_reply(world: World) -> None:
    service = world.service().wait_ready()
    asked = green.spawn(call, "slow", seconds=0.4)
    call("later", seconds=0.5)
    wait_log(service, "slow began")
    service.signal("TERM")
    assert asked.wait() == "done"
    assert service.wait() == 0
    assert "later ended" in service.log
    assert service.log.count("slow began") == 1


def test_term_with_five_calls_in_flight_runs_each_once_and_leaves_the_queue_empty(world: World) -> None:
    service = world.service().wait_ready()
    calls = [green.spawn(call, "slow", seconds=0.4) for _ in range(5)]
    deadline_s = time.monotonic() + 15
    while service.log.count("slow began") < 5:
        assert time.monotonic() < deadline_s, service.log
        green.sleep(0.01)
    service.signal("TERM")
    assert [asked.wait() for asked in calls] == ["done"] * 5
    assert service.wait() == 0
    assert service.log.count("slow began") == 5
    left = [(row["name"], row["ready"], row["unacked"]) for row in world.at_the_broker("queues")]
    assert ("worker", 0, 0) in left
    assert all(ready == unacked == 0 for _, ready, unacked in left), left


def test_stop_leaves_nothing_at_the_broker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process lives on, so it is not its end that the broker has seen."""
    monkeypatch.syspath_prepend(world.folder)
    with FLAGS.override(state_path=str(world.folder), sql_connection="sqlite:///$state_path/nova.sqlite"):
        running = Service.create(topic="worker", manager="worker.WorkerManager", host="here")
        running.start()
        assert call("echo", value=1) == 1
        rpc.cleanup()
        wait_until(lambda: len(world.at_the_broker("connections")) == 1)
        assert world.at_the_broker("consumers")
        assert running.stop(5).exit_code == 0
        wait_until(lambda: world.at_the_broker("connections") == [])
        assert world.at_the_broker("consumers") == []
        session.dispose()


def test_the_admin_socket_lists_calls_and_periodic_and_spawned_work_in_flight(world: World) -> None:
    service = world.service("worker", "--look_s=60").wait_ready()
    call("later", seconds=60)
    asked = green.spawn(call, "slow", seconds=60)
    for text in ("slow began", "later began", "look began"):
        wait_log(service, text)
    lines = backdoor.ask(f"{world.folder}/admin/nova-worker.test-host", "inflight").splitlines()
    shape = r"nova-worker@test-host \(ready\): (\w+) ([\w.]+) for \d+\.\d s request (req-\w+)"
    found = [re.fullmatch(shape, line) for line in lines]
    assert all(found), lines
    kinds = {match[2]: (match[1], match[3]) for match in found if match}
    assert {method: kind for method, (kind, _) in kinds.items()} == {
        "slow": "call",
        "WorkerManager._later": "spawned",
        "look": "periodic",
    }
    assert kinds["slow"][1] == kinds["WorkerManager._later"][1] == CONTEXT.request_id
    service.signal("QUIT")
    assert service.wait() == 3
    asked.kill()


@pytest.mark.parametrize("method", ["ask_other", "ask_self"])
def test_a_call_that_drains_still_calls_others_and_its_own_topic(world: World, method: str) -> None:
    world.service("helper").wait_ready()
    service = world.service().wait_ready()
    asked = green.spawn(call, method, seconds=0.3)
    wait_log(service, "ask began")
    service.signal("TERM")
    assert asked.wait() in ("nested", "own")
    assert service.wait() == 0


def test_a_call_past_the_drain_timeout_is_named_and_goes_to_another_process(world: World) -> None:
    first = world.service("worker", "--drain_timeout=0.3", "--host=first").wait_ready()
    asked = green.spawn(call, "slow", seconds=1.0)
    wait_log(first, "slow began")
    first.signal("TERM")
    second = world.service("worker", "--host=second").wait_ready()
    assert first.wait() == 4
    assert "still waits for call slow for" in first.log
    assert asked.wait() == "done"
    assert "slow ended" in second.log


def test_what_was_not_begun_when_the_stop_came_is_run_by_another(world: World) -> None:
    first = world.service("worker", "--rpc_thread_pool_size=1", "--host=first").wait_ready()
    calls = [green.spawn(call, "slow", seconds=0.3) for _ in range(5)]
    wait_log(first, "slow began")
    first.signal("TERM")
    second = world.service("worker", "--host=second").wait_ready()
    assert [asked.wait() for asked in calls] == ["done"] * 5
    assert first.wait() == 0
    assert first.log.count("slow began") + second.log.count("slow began") == 5


def test_the_kill_of_a_process_in_a_call_gives_the_call_to_its_successor(world: World) -> None:
    first = world.service().wait_ready()
    asked = green.spawn(call, "slow", seconds=0.5)
    wait_log(first, "slow began")
    first.signal("KILL")
    world.service().wait_ready()
    assert asked.wait() == "done"


def test_a_service_waits_for_a_broker_that_is_down_and_says_so_once(tmp_path: Path) -> None:
    made = World(tmp_path)
    with made.stack:
        broker = made.broker()
        broker.signal("TERM")
        broker.wait()
        service = made.service()
        service.wait_log("trying again")
        made.broker()
        service.wait_ready()
        assert service.log.count("trying again") == 1
        assert "Traceback" not in service.log


def test_term_ends_a_service_that_waits_for_the_broker_at_once(tmp_path: Path) -> None:
    made = World(tmp_path)
    with made.stack:
        broker = made.broker()
        broker.signal("TERM")
        broker.wait()
        service = made.service()
        service.wait_log("trying again")
        began_s = time.monotonic()
        service.signal("TERM")
        assert service.wait() == 0
        assert time.monotonic() - began_s < 2
        assert "Traceback" not in service.log


def test_term_ends_a_service_whose_broker_has_gone(world: World) -> None:
    service = world.service().wait_ready()
    call("later", seconds=0.5)
    wait_log(service, "later began")
    world.running_broker.signal("KILL")
    world.running_broker.wait()
    service.signal("TERM")
    assert service.wait(10) in (0, 4)
    assert "later ended" in service.log


def wait_row(world: World, state: str) -> None:
    deadline_s = time.monotonic() + 15
    while world.row()[0] != state:
        assert time.monotonic() < deadline_s, world.row()
        green.sleep(0.02)


def test_a_service_without_its_broker_lives_but_takes_no_work_until_it_is_back(world: World) -> None:
    service = world.service("worker", "--report_interval=0.05").wait_ready()
    world.running_broker.signal("KILL")
    world.running_broker.wait()
    wait_row(world, "disconnected")
    world.broker()
    wait_row(world, "ready")
    assert call("echo", value=1) == 1
    service.signal("TERM")
    assert service.wait() == 0


def test_a_heart_beats_by_the_interval(world: World) -> None:
    service = world.service("worker", "--report_interval=0.1").wait_ready()
    before = world.row()
    deadline_s = time.monotonic() + 10
    while world.row()[1] < before[1] + 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert world.row()[2] > before[2]
    service.signal("QUIT")
    assert service.wait() == 3
