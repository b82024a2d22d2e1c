"""A TERM at each named moment of a service's life: it ends in time, clean, and nothing is half done.

A manager's module wraps a function of the layer so that the process signals itself when that function is called:
a real signal, at exactly that place. All moments of one kind of service run side by side, to save time.
"""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nova import context, flags, green, rpc
from nova.testing import ServiceProcess

FLAGS = flags.FLAGS

# Moment -> the function of the layer at whose call the signal comes, for those that are not in the manager.
WRAPPED = {
    "schema": "nova.db.session:Database.sync",
    "row": "nova.db.services:report",
    "open journal": "nova.rpc.journal:Journal.open",
    "connect": "nova.rpc.link:Link.start",
    "confirm": "nova.rpc.link:Link.wait_up",
    "ready": "nova.notify:Notifier.ready",
    "consume": "nova.rpc.server:Server.on_delivery",
    "reply": "nova.rpc.server:Server._end",
    "ack": "nova.rpc.server:Server._ack",
    "cancel": "nova.rpc.server:Server.stop",
    "close": "nova.rpc.server:Server.close",
    "listen": "nova.wsgi:Server.start",
    "accept": "nova.wsgi:Server._adopt",
    "request": "nova.wsgi:Server._serve",
    "answered": "nova.wsgi:Server._count",
    "backlog": "nova.wsgi:Server._take_backlog",
}
MODULE = """
import importlib, os, signal, sys
from nova import flags, green, manager
from nova.db import services, session
FLAGS = flags.FLAGS
flags.DEFINE_string("moment", "", "when the process signals itself")
WRAPPED = {wrapped!r}

def at(moment):
    if FLAGS.moment == moment:
        print("TERM at", moment, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

def wrap(moment):
    module, _, path = WRAPPED[moment].partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        at(moment)
        return original(*args, **kwargs)
    setattr(owner, name, wrapped)

if FLAGS.moment in WRAPPED:
    wrap(FLAGS.moment)
at("import")

class Base(manager.Manager):
    def __init__(self, host=None):
        at("make")
        super().__init__(host)
    def init_host(self):
        at("init_host")
    def pre_start_hook(self):
        at("pre_start_hook")
    def post_start_hook(self):
        at("post_start_hook")
    def graceful_shutdown(self, timeout):
        at("drain")
    def cleanup_host(self):
        at("cleanup_host")

class Queue(Base):
    def poke(self, context):
        at("handler")
        self.spawn(self.later)
        with session.begin() as s:
            s.add(services.Service(host=FLAGS.host, binary="poked", topic="poked"))
            s.flush()
            at("commit")
        return "poked"
    def later(self):
        at("spawned")
        green.sleep(0.05)
    @manager.periodic_task(spacing=600, run_immediately=True)
    def tick(self, context):
        at("periodic")
        green.sleep(0.05)

class Web(Base, manager.WebManager):
    def wsgi_app(self):
        return self.answer
    def answer(self, environ, start_response):
        at("application")
        body = environ["wsgi.input"].read()
        at("body")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.parts(body)
    def parts(self, body):
        at("response")
        yield b"<" + body
        green.sleep(0.02)
        yield b">"
"""
STARTING = ["import", "make", "init_host", "pre_start_hook", "post_start_hook"]
QUEUE = [
    *STARTING, "schema", "row", "open journal", "connect", "confirm", "ready", "consume", "handler", "commit",
    "spawned", "reply", "ack", "periodic", "cancel", "drain", "cleanup_host", "close",
]  # fmt: skip
WEB = [
    *STARTING, "listen", "ready", "accept", "request", "application", "body", "response", "answered", "backlog",
    "drain", "cleanup_host",
]  # fmt: skip
# A moment of the end comes after the TERM that the test sends; the second one must change nothing.
OF_THE_END = {"cancel", "drain", "cleanup_host", "close", "backlog"}
WHILE_SERVING = {"consume", "handler", "commit", "spawned", "reply", "ack"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "moments.py").write_text(textwrap.dedent(MODULE.format(wrapped=WRAPPED)))
    return tmp_path


@pytest.fixture
def broker(folder: Path) -> Iterator[list[str]]:
    """The flags that lead to a broker."""
    arguments = ["--port=0", f"--port_file={folder}/port", f"--password_file={folder}/password"]
    with ServiceProcess("nova-broker", *arguments, f"--state_path={folder}") as process:
        process.wait_ready()
        url = f"amqp://127.0.0.1:{(folder / 'port').read_text().strip()}/"
        with FLAGS.override(broker=url, broker_password_file=f"{folder}/password"):
            yield [f"--broker={url}", f"--broker_password_file={folder}/password"]
            rpc.cleanup()


def start(folder: Path, kind: str, moment: str, *arguments: str) -> ServiceProcess:
    topic = moment.replace(" ", "").replace("_", "")
    return ServiceProcess(
        f"nova-{topic}",
        f"--{topic}_manager=moments.{kind}",
        f"--moment={moment}",
        *arguments,
        pythonpath=str(folder),
        env={"NOVA_HOST": topic},
    )


def check(service: ServiceProcess, moment: str) -> None:
    code = service.wait()
    assert f"TERM at {moment}\n" in service.log, f"{moment} never came:\n{service.log}"
    assert code == 0, f"{moment}: {code}\n{service.log}"
    assert "Traceback" not in service.log, f"{moment}:\n{service.log}"


def poke(moment: str) -> Any:
    message = {"method": "poke", "args": {}}
    try:
        return rpc.call(context.get_admin_context(), moment.replace("_", ""), message, timeout=3)
    except (rpc.RPCTimeout, rpc.NoSuchTopic) as error:
        return error


def test_term_at_any_moment_of_a_service_on_the_queue(folder: Path, broker: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        services = {m: stack.enter_context(start(folder, "Queue", m, *broker)) for m in QUEUE}
        for moment in sorted(WHILE_SERVING | OF_THE_END - {"backlog"}):
            services[moment].wait_ready()
        answers = {moment: green.spawn(poke, moment) for moment in WHILE_SERVING}
        for moment in sorted(OF_THE_END - {"backlog"}):
            services[moment].signal("TERM")
        results = {moment: answer.wait() for moment, answer in answers.items()}
        for moment, service in services.items():
            check(service, moment)
        for moment, result in results.items():
            with contextlib.closing(sqlite3.connect(services[moment].state_path / "nova.sqlite")) as database:
                count = database.execute("SELECT count(*) FROM services WHERE binary = 'poked'").fetchone()[0]
            # What was begun is done and answered; what was not is still in the queue, its caller waits.
            assert (result, count) == ("poked", 1) or (moment == "consume" and count == 0), (
                moment,
                result,
                count,
            )


def ask(service: ServiceProcess) -> bytes:
    service.wait_log("listens on port ")
    port = int(service.log.split("listens on port ")[1].split()[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/", b"body")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_term_at_any_moment_of_a_service_on_the_web(folder: Path) -> None:
    serving = ["accept", "request", "application", "body", "response", "answered"]
    ending = ["backlog", "drain", "cleanup_host"]
    with contextlib.ExitStack() as stack:
        services = {m: stack.enter_context(start(folder, "Web", m)) for m in WEB}
        for moment in serving + ending:
            services[moment].wait_ready()
        for moment in serving:
            assert ask(services[moment]) == b"<body>", moment
        for moment in ending:
            services[moment].signal("TERM")
        began_s = time.monotonic()
        for moment, service in services.items():
            check(service, moment)
        assert time.monotonic() - began_s < 5
