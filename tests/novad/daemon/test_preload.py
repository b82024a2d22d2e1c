"""Python services from a template and from an interpreter of their own: nobody can tell them apart.

Most tests run both ways; what a real interpreter does, run here beside it, is the oracle.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novad.core.spec import Port, Python, Stop, to_json
from novad.host import proc

Eventually = Callable[[Callable[[], Any]], Any]

ABOUT = """
import json, os, random, resource, signal, sys, time
def about():
    return {
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path[0], "cwd": os.getcwd(), "name": __name__,
        "stdin": os.readlink("/proc/self/fd/0"), "leader": os.getsid(0) == os.getpid() == os.getpgrp(),
        "signals": {s.name: str(signal.getsignal(s)).partition(" at ")[0] for s in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in os.listdir("/proc/self/fd")
                              if os.path.exists(f"/proc/self/fd/{n}")),
        "limit": resource.getrlimit(resource.RLIMIT_CORE)[0], "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "zone": time.tzname[0], "env": {k: v for k, v in os.environ.items() if k not in ("NOVAD_ID", "LISTEN_PID")},
        "flags": str(sys.flags), "umask": os.umask(0o22),
    }
def main():
    print(json.dumps(about()), flush=True)
    return 7
"""


@pytest.fixture(params=["preloaded", "executed"])
def preload(request: Any) -> tuple[str, ...]:
    return ("json", "decimal") if request.param == "preloaded" else ()


class Preloading:
    """A daemon whose cluster has a preload list, and a project directory with modules."""

    def __init__(self, daemon: Any, preload: tuple[str, ...]) -> None:
        self.daemon = daemon
        self.preload = preload
        self.dir = Path(daemon.place.dir)

    def module(self, name: str, text: str) -> None:
        (self.dir / f"{name}.py").write_text(text)

    def spec(self, name: str, target: str, *args: str, **fields: Any) -> Any:
        module, _, function = target.partition(":")
        start = ("-c", f"import sys, {module} as module; sys.exit(module.{function}())") if function else ()
        argv = (sys.executable, *(start or ("-m", module)), *args)
        return self.daemon.spec(name, *argv, python=Python(target, args), **fields)

    def up(self, *specs: Any) -> Any:
        assert self.daemon.start() == "ready"
        client = self.daemon.client()
        client.ask("up", cluster=to_json(self.daemon.cluster(*specs, preload=self.preload)))
        return client

    def template(self) -> int | None:
        """The pid of the template."""
        found = [
            pid
            for pid in proc.all_pids()
            if proc.mark(pid, "NOVAD_TEST") == self.daemon.place.run_dir
            and proc.command(pid).startswith("novad template:")
            and proc.is_alive(pid)
        ]
        assert len(found) < 2
        return found[0] if found else None

    def was_forked(self, name: str) -> list[bool]:
        """For each child of `name`, whether it came from a template."""
        return [line.endswith(", preloaded") for line in self.daemon.text(name, "n") if "started, pid" in line]

    def said(self, name: str) -> list[str]:
        """The lines of stdout so far."""
        return self.daemon.text(name) if os.path.exists(f"{self.daemon.place.log_dir}/{name}.log") else []

    def remarks(self) -> list[str]:
        lines = Path(f"{self.daemon.place.state_dir}/journal.jsonl").read_text().splitlines()
        return [item["text"] for item in map(json.loads, lines) if item["type"] == "template"]


@pytest.fixture
def cluster(daemon: Any, preload: tuple[str, ...]) -> Preloading:
    return Preloading(daemon, preload)


@pytest.fixture
def preloaded(daemon: Any) -> Preloading:
    return Preloading(daemon, ("json", "decimal"))


def row(client: Any, name: str = "a") -> dict[str, Any]:
    return client.ask("status", names=[name])["processes"][0]


def ended(client: Any) -> dict[str, Any]:
    """The last exit of `a`, once it has ended for good."""
    client.ask("wait", **{"for": "stopped"})
    return client.ask("why", names=["a"])["processes"][0]["exits"][0]


def pid_of(client: Any, eventually: Eventually, not_pid: int | None = None) -> int:
    return eventually(lambda: (found := row(client)["pid"]) and found != not_pid and found)


# --- As a fresh interpreter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["svc", "svc:main"])
def test_a_service_finds_what_a_fresh_interpreter_finds(daemon: Any, target: str, eventually: Eventually) -> None:
    found = {}
    for way, preload in (("forked", ("json", "decimal")), ("executed", ())):
        cluster = Preloading(daemon, preload)
        cluster.module("svc", ABOUT + "\nif __name__ == '__main__': sys.exit(main())\n")
        spec = cluster.spec(
            "a", target, "--flag", "v v", env={"TZ": "Asia/Tokyo", "OWN": "é"}, limits={"core": 0}, nice=3,
            restart="no",
        )  # fmt: skip
        client = cluster.up(spec)
        assert ended(client)["exit_code"] == 7
        assert cluster.was_forked("a")[-1] is (way == "forked")
        found[way] = json.loads(daemon.text("a")[-1])
        client.ask("down")
        daemon.process.wait(20)
    assert found["forked"] == found["executed"]
    assert found["forked"]["nice"] == 3
    assert found["forked"]["zone"] == "JST"


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        ("raise SystemExit(5)", 5, None),
        ("raise SystemExit('some words')", 1, None),
        ("raise SystemExit", 0, None),
        ("def deep(): raise ValueError('no')\ndeep()", 1, None),
        ("try:\n    1/0\nexcept Exception as e:\n    raise RuntimeError('after') from e", 1, None),
        ("import missing_module", 1, None),
        ("def broken(:", 1, None),
        ("raise KeyboardInterrupt", None, "SIGINT"),
        ("import os; os.kill(os.getpid(), 9)", None, "SIGKILL"),
        ("import atexit; atexit.register(print, 'bye'); print('text', end='')", 0, None),
    ],
)
def test_an_end_looks_as_under_python_m(
    cluster: Preloading, text: str, code: int | None, number: str | None
) -> None:
    cluster.module("svc", text)
    spec = cluster.spec("a", "svc", restart="no")
    client = cluster.up(spec)
    exit = ended(client)
    assert (exit["exit_code"], exit["signal"]) == (code, number)
    alone = subprocess.run(spec.argv, cwd=spec.cwd, capture_output=True, text=True, timeout=20)
    assert cluster.daemon.text("a", "e") == alone.stderr.splitlines()
    assert cluster.daemon.text("a", "o") == alone.stdout.splitlines()
    assert cluster.was_forked("a") == [bool(cluster.preload)]


def test_a_module_that_is_missing_is_reported_as_under_python_m(cluster: Preloading) -> None:
    client = cluster.up(cluster.spec("a", "no_such_module", restart="no"))
    assert ended(client)["exit_code"] == 1
    assert cluster.daemon.text("a", "e") == [f"{sys.executable}: No module named no_such_module"]


def test_a_directory_that_is_missing_is_reported_as_ever(cluster: Preloading, tmp_path: Path) -> None:
    cluster.module("svc", "")
    spec = cluster.spec("a", "svc", restart="no")
    client = cluster.up(cluster.spec("b", "svc"), type(spec)(**{**as_dict(spec), "cwd": str(tmp_path / "gone")}))
    client.ask("wait", **{"for": "stopped"}, names=["a"])
    assert "gone: no such directory" in row(client)["note"]


def as_dict(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_two_services_do_not_share_chance(preloaded: Preloading) -> None:
    preloaded.preload = ("random",)
    preloaded.module("svc", "import random; print(random.random())")
    client = preloaded.up(*(preloaded.spec(f"a.{n}", "svc") for n in (1, 2)))
    client.ask("wait", **{"for": "done"})
    assert preloaded.was_forked("a.1") == preloaded.was_forked("a.2") == [True]
    assert preloaded.daemon.text("a.1") != preloaded.daemon.text("a.2")


def test_a_listening_socket_is_passed_under_the_number_of_the_protocol(cluster: Preloading) -> None:
    cluster.module(
        "svc",
        "import os, socket\n"
        "ours = os.environ['LISTEN_PID'] == str(os.getpid())\n"
        "print(ours, os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'])\n"
        "print(socket.socket(fileno=3).getsockname()[1], socket.socket(fileno=4).getsockname()[1])\n",
    )
    numbers = free_ports(2)
    ports = {name: Port(number, listen=True) for name, number in zip(("http", "admin"), numbers, strict=True)}
    client = cluster.up(cluster.spec("a", "svc", ports=ports))
    client.ask("wait", **{"for": "done"})
    assert cluster.daemon.text("a") == ["True 2 http:admin", f"{numbers[0]} {numbers[1]}"]


def free_ports(count: int) -> list[int]:
    import socket

    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return numbers


# --- As a child of novad ------------------------------------------------------------------------------------


SLEEPER = "import time; time.sleep(600)"


def test_proc_shows_the_own_environment_and_command_of_a_service(
    cluster: Preloading, eventually: Eventually
) -> None:
    cluster.module("svc", "import os, json; print(json.dumps(dict(os.environ)), flush=True)\n" + SLEEPER)
    client = cluster.up(cluster.spec("a", "svc", "x", env={"LONG": "y" * 2000}))
    pid = pid_of(client, eventually)
    eventually(lambda: cluster.said("a"))
    shown = proc.read(f"/proc/{pid}/environ").decode().split("\0")
    own = json.loads(cluster.daemon.text("a")[0])
    own.pop("LC_CTYPE", None)  # where the interpreter itself has set it (PEP 538)
    assert dict(item.split("=", 1) for item in shown if item) == own
    assert proc.mark(pid, "NOVAD_ID").endswith("/a/1")
    assert proc.command(pid) == f"{sys.executable} -m svc x"
    assert proc.stat(pid).parent == cluster.daemon.process.pid


def test_what_a_service_leaves_behind_is_found_and_ended(cluster: Preloading, eventually: Eventually) -> None:
    """It forks, without exec, into a session of its own and dies."""
    cluster.module(
        "svc",
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    time.sleep(600)\n"
        "os.wait(); time.sleep(600)\n",
    )
    client = cluster.up(cluster.spec("a", "svc", stop=Stop("TERM", 2.0)))
    pid = pid_of(client, eventually)
    # While it executes it has no environment (proc(5)).
    mark = eventually(lambda: proc.mark(pid, "NOVAD_ID"))
    eventually(lambda: list(cluster.daemon.live().values()).count(mark) == 2)
    assert client.ask("stop", names=["a"])["survivors"] == []
    assert mark not in cluster.daemon.live().values()


def test_kill_9_of_novad_costs_no_restart(cluster: Preloading, eventually: Eventually) -> None:
    cluster.module(
        "svc", "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(42))\ntime.sleep(600)\n"
    )
    client = cluster.up(cluster.spec("a", "svc"), cluster.spec("b", "svc"))
    client.ask("wait", **{"for": "ready"})
    before = {name: row(client, name)["pid"] for name in "ab"}
    cluster.daemon.process.kill()
    cluster.daemon.process.wait()
    eventually(lambda: cluster.template() is None)
    assert sorted(cluster.daemon.live()) == sorted(before.values())
    assert cluster.daemon.start() == "ready"
    client = cluster.daemon.client()
    assert {name: row(client, name)["pid"] for name in "ab"} == before
    os.kill(before["a"], signal.SIGTERM)
    pid_of(client, eventually, before["a"])
    assert cluster.was_forked("a") == [bool(cluster.preload)] * 2
    assert client.ask("down")["survivors"] == []
    cluster.daemon.process.wait(20)
    eventually(lambda: cluster.daemon.live() == {})


# --- The template -------------------------------------------------------------------------------------------


def test_down_ends_the_template(preloaded: Preloading, eventually: Eventually) -> None:
    preloaded.module("svc", SLEEPER)
    client = preloaded.up(preloaded.spec("a", "svc"))
    client.ask("wait", **{"for": "ready"})
    assert preloaded.template()
    client.ask("down")
    preloaded.daemon.process.wait(20)
    eventually(lambda: preloaded.daemon.live() == {})


def test_the_death_of_the_template_does_not_matter_to_services(
    preloaded: Preloading, eventually: Eventually
) -> None:
    preloaded.module("svc", SLEEPER)
    client = preloaded.up(preloaded.spec("a", "svc"))
    client.ask("wait", **{"for": "ready"})
    pid, template = row(client)["pid"], preloaded.template()
    os.kill(template, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{template}"))
    assert row(client)["pid"] == pid
    os.kill(pid, signal.SIGKILL)
    pid_of(client, eventually, pid)
    assert preloaded.was_forked("a")[0] is True
    assert preloaded.template() != template


def test_a_template_whose_file_changed_is_replaced_before_the_next_fork(
    preloaded: Preloading, eventually: Eventually
) -> None:
    preloaded.module("shared", "version = 1")
    preloaded.module("svc", f"import shared; print(shared.version, flush=True)\n{SLEEPER}")
    preloaded.preload = ("shared",)
    client = preloaded.up(preloaded.spec("a", "svc"))
    eventually(lambda: preloaded.said("a") == ["1"])
    template = preloaded.template()
    preloaded.module("shared", "version = 'two'")
    client.ask("restart")
    eventually(lambda: preloaded.said("a") == ["1", "two"])
    assert preloaded.template() not in (template, None)
    assert preloaded.was_forked("a") == [True, True]
    assert preloaded.remarks() == [f"the template is replaced: {preloaded.dir}/shared.py changed"]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise ImportError('not today')", "ImportError: not today"),
        ("import os; os._exit(3)", "the template died"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
         "RuntimeError: a preloaded module has started a thread"),
        ("import socket; kept = socket.socket()", "RuntimeError: a preloaded module has opened socket:"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_preloaded_is_said_once_and_the_services_run(
    preloaded: Preloading, module: str, reason: str, eventually: Eventually
) -> None:
    preloaded.module("shared", module)
    preloaded.module("svc", SLEEPER)
    preloaded.preload = ("shared",)
    client = preloaded.up(*(preloaded.spec(f"a.{n}", "svc") for n in (1, 2)))
    client.ask("wait", **{"for": "ready"})
    assert preloaded.was_forked("a.1") == preloaded.was_forked("a.2") == [False]
    [remark] = preloaded.remarks()
    assert reason in remark
    eventually(lambda: preloaded.template() is None)


def test_a_template_that_is_silent_is_not_waited_for(preloaded: Preloading, eventually: Eventually) -> None:
    preloaded.module("svc", SLEEPER)
    client = preloaded.up(preloaded.spec("a", "svc"))
    client.ask("wait", **{"for": "ready"})
    pid, template = row(client)["pid"], preloaded.template()
    os.kill(template, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    pid_of(client, eventually, pid)
    assert preloaded.was_forked("a") == [True, False]
    assert "silent for 2 s" in preloaded.remarks()[0]
    eventually(lambda: not os.path.exists(f"/proc/{template}"))
    assert list(preloaded.daemon.live()) == [row(client)["pid"]]


@pytest.mark.parametrize("kill", [False, True])
def test_a_stop_while_the_template_imports_leaves_nothing(preloaded: Preloading, kill: bool) -> None:
    gate = preloaded.dir / "gate"
    os.mkfifo(gate)
    preloaded.module("shared", f"open({str(gate)!r}).read()")
    preloaded.module("svc", f"import signal\nsignal.signal(15, signal.SIG_IGN)\n{SLEEPER}")
    preloaded.preload = ("shared",)
    client = preloaded.up(preloaded.spec("a", "svc", stop=Stop("TERM", 1.0)))
    assert row(client)["state"] == "starting"
    number = client.send("stop", names=["a"], kill=kill)
    gate.write_text("go")
    assert client.answer(number)["survivors"] == []
    assert row(client)["state"] == "stopped"
    assert "" not in preloaded.daemon.live().values() or preloaded.template()
    assert not [mark for mark in preloaded.daemon.live().values() if mark]


def test_a_service_with_another_python_path_has_another_template(
    preloaded: Preloading, tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shared.py").write_text("version = 'other'")
    preloaded.module("shared", "version = 'here'")
    preloaded.module("svc", "import sys; sys.path.reverse(); import shared; print(shared.version)")
    preloaded.preload = ("json",)
    specs = [
        preloaded.spec("a", "svc"),
        preloaded.spec("b", "svc", env={"PYTHONPATH": str(tmp_path / "other"), "PYTHONUNBUFFERED": "1"}),
    ]
    client = preloaded.up(*specs)
    client.ask("wait", **{"for": "done"})
    assert preloaded.daemon.text("a") == ["here"]
    assert preloaded.was_forked("a") == preloaded.was_forked("b") == [True]
