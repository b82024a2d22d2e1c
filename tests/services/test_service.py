"""A Service around a manager, in this process, on the bus that needs no broker."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nova import context, exception, flags, green, manager, periodic, rpc, service
from nova.db import services as services_table
from nova.db import session
from nova.rpc.errors import NoSuchMethod
from nova.service import Service
from nova.testing import call_waiter, rpc_hook, service_runner, worker_factory

FLAGS = flags.FLAGS
CONTEXT = context.RequestContext(user_id="u", request_id="req-of-the-test")


class Journal:
    """What happened, in order; shared by the manager under test and the test."""

    lines: list[str] = []
    topic = ""


class ExtendedManager(manager.Manager):
    """All hooks, some methods."""

    def __init__(self, host: str | None = None, extra: str = "") -> None:
        super().__init__(host)
        Journal.lines = ["__init__"]
        self.extra = extra
        self.gate = green.Event()
        self.other = PlainManager()

    def init_host(self) -> None:
        Journal.lines.append("init_host")

    def pre_start_hook(self) -> None:
        Journal.lines.append("pre_start_hook")

    def post_start_hook(self) -> None:
        Journal.lines.append("post_start_hook")

    def graceful_shutdown(self, timeout: float) -> None:
        Journal.lines.append("graceful_shutdown")

    def cleanup_host(self) -> None:
        Journal.lines.append("cleanup_host")

    def test_method(self, context: Any) -> str:
        return "manager"

    def who(self, context: Any, greeting: str = "hello") -> str:
        return f"{greeting} {context.user_id} {context.request_id}"

    def current(self, context: Any) -> str | None:
        found = nova_current()
        return found.request_id if found else None

    def wait_for_gate(self, context: Any) -> str:
        Journal.lines.append("call began")
        self.gate.wait()
        Journal.lines.append("call ended")
        return "done"

    def in_background(self, context: Any) -> None:
        self.spawn(self._background)

    def _background(self) -> None:
        self.gate.wait()
        Journal.lines.append("background ended")

    def fail(self, context: Any) -> None:
        raise ValueError("a bug")

    def _private(self, context: Any) -> str:
        return "secret"


class PlainManager:
    """A class of its own with one method is a manager too."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host

    def hello(self, context: Any) -> str:
        return "plain"


class FailingManager(manager.Manager):
    def init_host(self) -> None:
        raise exception.TemporaryError("the hypervisor is away")


class PeriodicManager(manager.Manager):
    def __init__(self, host: str | None = None) -> None:
        super().__init__(host)
        self.ran: dict[str, int] = {}
        self.enough = green.Event()
        self.gate = green.Event()

    def _count(self, name: str) -> None:
        self.ran[name] = self.ran.get(name, 0) + 1
        if self.ran.get("quick", 0) >= 5 and not self.enough.ready():
            self.enough.send(None)

    @manager.periodic_task(spacing=0.01, run_immediately=True)
    def quick(self, context: Any) -> None:
        self._count("quick")

    @manager.periodic_task(spacing=0.01, run_immediately=True)
    def slow(self, context: Any) -> None:
        self._count("slow")
        self.gate.wait()

    @manager.periodic_task(spacing=0.01, run_immediately=True)
    def broken(self, context: Any) -> None:
        self._count("broken")
        raise SystemExit("must not end anything")

    @manager.periodic_task(spacing=0.01, run_immediately=True, enabled=False)
    def disabled(self, context: Any) -> None:
        self._count("disabled")

    @manager.periodic_task(spacing=0.01, run_immediately=True, timeout=0.01)
    def hanging(self, context: Any) -> None:
        self._count("hanging")
        green.sleep(60)


def nova_current() -> context.RequestContext | None:
    return context.current()


@pytest.fixture(autouse=True)
def world(tmp_path: Path) -> Iterator[None]:
    values = {
        "fake_rabbit": True,
        "state_path": str(tmp_path),
        "sql_connection": "sqlite:///$state_path/nova.sqlite",
        "host": "test-host",
    }
    with FLAGS.override(**values):
        yield
        rpc.cleanup()
        session.dispose()


@pytest.fixture(autouse=True)
def topic(request: pytest.FixtureRequest) -> str:
    """A topic for each test: what one leaves on the bus is not for the next."""
    Journal.topic = f"test{abs(hash(request.node.name))}"
    return Journal.topic


def make(kind: type, **more: Any) -> Service:
    return Service.create(topic=Journal.topic, binary="nova-test", manager=f"{__name__}:{kind.__name__}", **more)


def call(method: str, server: str = "", **args: Any) -> Any:
    return rpc.call(CONTEXT, Journal.topic + server, {"method": method, "args": args}, timeout=5)


def until(condition: Any, timeout_s: float = 5.0) -> None:
    with green.Timeout(timeout_s, TimeoutError("it did not become true")):
        while not condition():
            green.sleep(0.002)


def test_create_decides_from_the_name_of_the_binary_and_flags() -> None:
    made = Service.create(binary="nova-compute")
    assert (made.binary, made.topic, made.host) == ("nova-compute", "compute", "test-host")
    assert made.manager_class_name == FLAGS.compute_manager
    with FLAGS.override(compute_manager="x.Y"):
        assert Service.create(topic="compute").manager_class_name == "x.Y"
    assert Service.create(host="h", topic="t", manager="a.B").manager_class_name == "a.B"


def test_a_topic_without_a_manager_is_an_error_that_names_the_flag() -> None:
    with pytest.raises(exception.NoManager, match="set --nobody_manager") as caught:
        Service.create(binary="nova-nobody")
    assert "--compute_manager" in str(caught.value)
    assert caught.value.exit_code == 100


@pytest.mark.parametrize("path", ["nova.compute.manager.ComputeManger", "nova.compute.manger.ComputeManager"])
def test_a_class_that_is_misspelt_is_named_with_its_nearest(path: str) -> None:
    with pytest.raises(
        exception.NoManager, match=r"did you mean nova\.compute\.manager\.ComputeManager\?"
    ) as caught:
        service.import_class(path)
    assert caught.value.exit_code == 100


def test_a_binary_that_is_misspelt_is_named_with_its_nearest() -> None:
    with pytest.raises(exception.NoManager, match=r"did you mean nova-compute\?"):
        Service.create(binary="nova-comptue")


def test_a_new_service_without_its_flag_is_not_taken_for_another() -> None:
    with pytest.raises(exception.NoManager) as caught:
        Service.create(binary="nova-mine")
    assert "--mine_manager" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_module_beside_the_service_that_is_misspelt_is_named_with_its_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeter_of_mine.py").write_text("raise AssertionError('nobody asked for it')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(exception.NoManager, match=r"did you mean greeter_of_mine\.GreeterManager\?"):
        service.import_class("gretter_of_mine.GreeterManager")


@pytest.mark.parametrize("path", ["nowhere.Manager", "nova.manager.Nothing", "word", ""])
def test_a_class_that_cannot_be_loaded_is_named(path: str) -> None:
    with pytest.raises(exception.NoManager, match="cannot load"):
        service.import_class(path)


def test_before_start_the_service_has_no_manager() -> None:
    with pytest.raises(AttributeError, match="before start"):
        _ = make(ExtendedManager).test_method


def test_after_start_attributes_are_those_of_the_manager() -> None:
    with service_runner(make(ExtendedManager, extra="x")) as (running,):
        assert running.test_method(CONTEXT) == "manager"
        assert running.extra == "x"
        assert running.manager.host == "test-host"


def test_hooks_come_in_order_around_the_life() -> None:
    made = make(ExtendedManager)
    assert made.state == "new"
    made.start()
    assert made.state == "ready"
    report = made.stop()
    assert (made.state, report.exit_code, report.unfinished) == ("stopped", 0, ())
    assert Journal.lines == [
        "__init__",
        "init_host",
        "pre_start_hook",
        "post_start_hook",
        "graceful_shutdown",
        "cleanup_host",
    ]


def test_a_message_reaches_the_manager_with_its_context() -> None:
    with service_runner(make(ExtendedManager)):
        assert call("who", greeting="hi") == "hi u req-of-the-test"
        assert call("who", server=".test-host") == "hello u req-of-the-test"
        assert call("current") == "req-of-the-test"


def test_a_method_gives_the_same_result_called_directly() -> None:
    alone = worker_factory(ExtendedManager, extra="replaced")
    assert alone.extra == "replaced"
    with service_runner(make(ExtendedManager)) as (running,):
        assert alone.who(CONTEXT) == rpc_hook(running, "who", CONTEXT)() == call("who")
    with pytest.raises(TypeError, match="no 'nothing'"):
        worker_factory(ExtendedManager, nothing=1)


@pytest.mark.parametrize(
    "method",
    [
        "_private", "__init__", "__class__", "init_host", "cleanup_host", "spawn", "periodic_tasks", "bind",
        "rpc_resolve", "recover", "start", "stop", "kill", "report_state", "gate", "other", "extra", "host",
        "is_shutting_down", "no_such_method", "",
    ],
)  # fmt: skip
def test_nothing_but_public_methods_of_the_manager_is_remote(method: str) -> None:
    with service_runner(make(ExtendedManager)) as (running,):
        with pytest.raises(NoSuchMethod):
            rpc_hook(running, method)()
        with pytest.raises(NoSuchMethod):
            call(method)


def test_a_bare_class_with_one_method_is_a_manager() -> None:
    with service_runner(make(PlainManager)):
        assert call("hello") == "plain"
        with pytest.raises(NoSuchMethod):
            call("__init__")


def test_what_a_method_raises_reaches_the_caller_and_the_service_goes_on() -> None:
    with service_runner(make(ExtendedManager)):
        with pytest.raises(rpc.RemoteError, match="a bug"):
            call("fail")
        assert call("test_method") == "manager"


def test_stop_waits_for_a_call_and_its_reply_is_delivered() -> None:
    made = make(ExtendedManager)
    made.start()
    asked = green.spawn(call, "wait_for_gate")
    until(lambda: "call began" in Journal.lines)
    assert [(item.method) for item in made.inflight] == ["wait_for_gate"]
    stopping = green.spawn(made.stop, 10)
    until(lambda: made.state == "draining")
    assert made.manager.is_shutting_down
    made.manager.gate.send(None)
    assert asked.wait() == "done"
    assert stopping.wait().exit_code == 0
    assert Journal.lines.index("call ended") < Journal.lines.index("cleanup_host")


def test_stop_waits_for_work_in_the_background() -> None:
    made = make(ExtendedManager)
    made.start()
    call("in_background")
    assert [item.kind for item in made.inflight] == ["spawned"]
    assert made.inflight[0].request_id == "req-of-the-test"
    stopping = green.spawn(made.stop, 10)
    until(lambda: made.state == "draining")
    made.manager.gate.send(None)
    stopping.wait()
    assert Journal.lines.index("background ended") < Journal.lines.index("cleanup_host")


def test_a_stop_that_runs_out_of_time_names_what_it_cut_off() -> None:
    made = make(ExtendedManager)
    made.start()
    green.spawn(call, "wait_for_gate")
    until(lambda: "call began" in Journal.lines)
    report = made.stop(0.05)
    assert report.exit_code == 4
    assert len(report.unfinished) == 1
    assert "wait_for_gate for 0." in report.unfinished[0]


def test_stop_may_be_called_from_many_greenlets_and_again_afterwards() -> None:
    made = make(ExtendedManager)
    made.start()
    reports = [green.spawn(made.stop) for _ in range(5)]
    assert [report.wait().exit_code for report in reports] == [0] * 5
    assert made.stop().exit_code == 0
    assert Journal.lines.count("cleanup_host") == 1


def test_stop_before_start_is_clean_and_start_afterwards_does_nothing() -> None:
    made = make(ExtendedManager)
    assert made.stop().exit_code == 0
    made.start()
    assert made.state == "stopped"


def test_stop_during_the_start_ends_the_start() -> None:
    class Slow(ExtendedManager):
        def init_host(self) -> None:
            Journal.lines.append("init_host began")
            green.sleep(60)

    sys.modules[__name__].__dict__["Slow"] = Slow
    made = make(Slow)
    starting = green.spawn(made.start)
    until(lambda: "init_host began" in Journal.lines)
    assert made.stop().exit_code == 0
    starting.wait()
    assert made.state == "stopped"


def test_a_start_that_fails_raises_and_keeps_the_exit_code() -> None:
    made = make(FailingManager)
    with pytest.raises(exception.TemporaryError, match="hypervisor"):
        made.start()
    assert made.wait() == 111


def test_kill_ends_at_once_and_takes_the_row_with_it_when_asked() -> None:
    made = make(ExtendedManager)
    made.start()
    green.spawn(call, "wait_for_gate")
    until(lambda: "call began" in Journal.lines)
    made.kill(destroy=True)
    assert made.wait() == 3
    assert services_table.get_all() == []


def test_the_row_follows_the_life(topic: str) -> None:
    made = make(ExtendedManager)
    made.start()
    row = services_table.get_by_args("test-host", "nova-test")
    assert (row.topic, row.state, row.disabled) == (topic, "ready", False)
    made.stop()
    assert services_table.get_by_args("test-host", "nova-test").state == "stopped"


def test_the_heart_beats_and_writes_a_row_that_vanished_again() -> None:
    with service_runner(make(ExtendedManager, report_interval=0.01)):
        before = services_table.get_by_args("test-host", "nova-test").report_count
        until(lambda: services_table.get_by_args("test-host", "nova-test").report_count > before + 2)
        services_table.destroy("test-host", "nova-test")
        until(lambda: services_table.get_all() != [])


def test_a_database_that_goes_away_is_logged_once_and_once_more_when_it_is_back(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with service_runner(make(ExtendedManager)) as (running,), FLAGS.override(sql_timeout=0.01):
        other = sqlite3.connect(tmp_path / "nova.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            running.report_state()
        other.execute("ROLLBACK")
        for _ in range(3):
            running.report_state()
        other.close()
    messages = [record.getMessage() for record in caplog.records if "database" in record.getMessage()]
    assert len(messages) == 2
    assert "database is away" in messages[0]
    assert "database is back" in messages[1]


def test_a_database_that_is_away_does_not_make_a_clean_stop_late(tmp_path: Path) -> None:
    made = make(ExtendedManager)
    made.start()
    other = sqlite3.connect(tmp_path / "nova.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    report = made.stop()
    other.close()
    assert report.exit_code == 0
    assert report.seconds < 1.5


def test_a_reload_before_there_is_a_manager_is_fine() -> None:
    make(ExtendedManager).reset()


def test_periodic_tasks_run_in_a_service_only_and_none_holds_up_another() -> None:
    alone = PeriodicManager()
    green.sleep(0.05)
    assert alone.ran == {}
    with service_runner(make(PeriodicManager)) as (running,):
        with green.Timeout(5):
            running.manager.enough.wait()
        until(lambda: running.ran.get("broken", 0) > 1)
        until(lambda: running.ran.get("hanging", 0) > 1)
        assert running.ran["slow"] == 1, "a task does not overlap itself"
        assert "disabled" not in running.ran
        running.manager.gate.send(None)


def test_the_first_runs_of_a_task_in_many_services_are_spread() -> None:
    task = periodic.Task("spread", 60.0)
    firsts = [task.first_s(number / 100) for number in range(100)]
    assert max(firsts) - min(firsts) > 50
    assert all(0 < first_s <= 60 for first_s in firsts)


def test_stop_waits_for_a_periodic_task_that_runs_and_starts_no_other() -> None:
    made = make(PeriodicManager)
    made.start()
    until(lambda: made.ran.get("slow") == 1)
    stopping = green.spawn(made.stop, 10)
    until(lambda: made.state == "draining")
    assert "slow" in [item.method for item in made.inflight]
    made.manager.gate.send(None)
    assert stopping.wait().exit_code == 0
    assert made.ran["slow"] == 1


def test_a_manager_may_override_periodic_tasks_as_in_bexar() -> None:
    class Bexar(manager.Manager):
        ran = 0

        def periodic_tasks(self, context: Any = None) -> None:
            type(self).ran += 1

    sys.modules[__name__].__dict__["Bexar"] = Bexar
    with service_runner(make(Bexar, periodic_interval=0.01)):
        until(lambda: Bexar.ran > 2)


def test_call_waiter_gives_the_result_of_the_next_call() -> None:
    with service_runner(make(ExtendedManager)) as (running,), call_waiter(running, "who") as outcome:
        rpc.cast(CONTEXT, Journal.topic, {"method": "who", "args": {}})
        assert outcome.wait() == "hello u req-of-the-test"
    with service_runner(make(ExtendedManager)) as (running,), call_waiter(running, "fail") as outcome:
        rpc.cast(CONTEXT, Journal.topic, {"method": "fail", "args": {}})
        with pytest.raises(ValueError, match="a bug"):
            outcome.wait()


def test_a_slow_call_does_not_delay_another() -> None:
    with service_runner(make(ExtendedManager)) as (running,):
        slow = green.spawn(call, "wait_for_gate")
        until(lambda: "call began" in Journal.lines)
        assert call("test_method") == "manager"
        running.manager.gate.send(None)
        assert slow.wait() == "done"
