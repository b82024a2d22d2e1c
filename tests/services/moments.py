"""Services that signal themselves at a named moment of their life, for the tests and the experiment of TERM.

A manager's module wraps a function of the layer so that the process signals itself when that function is called:
a real signal, at exactly that place. All moments of one kind of service run side by side, to save time.
"""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from nova import context, flags, green, rpc
from nova.testing import ServiceProcess

from tests.services.rpc.running import Proxy

FLAGS = flags.FLAGS

# Moment -> the function of the layer at whose call the signal comes, for those that are not in the manager.
WRAPPED = {
    "schema": "nova.db.session:Database.sync",
    "row": "nova.db.services:report",
    "open journal": "nova.rpc.journal:Journal.open",
    "connect": "nova.rpc.link:Link.start",
    "confirm": "nova.rpc.link:Link.wait_up",
    "reconnect": "nova.rpc.link:Link._note",
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
flags.DEFINE_integer("terms", 1, "how often")
flags.DEFINE_bool("hasty", False, "a second TERM kills, as in oslo.service")
WRAPPED = {wrapped!r}

def at(moment):
    if FLAGS.moment == moment:
        print("TERM at", moment, flush=True)
        for _ in range(FLAGS.terms):
            os.kill(os.getpid(), signal.SIGTERM)

if FLAGS.hasty:
    from nova import lifecycle
    decide = lifecycle.decide
    lifecycle.decide = lambda name, is_stopping, interrupts: (
        lifecycle.Action.KILL if name == "TERM" and is_stopping else decide(name, is_stopping, interrupts)
    )

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
    *STARTING, "schema", "row", "open journal", "connect", "confirm", "reconnect", "ready", "consume", "handler",
    "commit", "spawned", "reply", "ack", "periodic", "cancel", "drain", "cleanup_host", "close",
]  # fmt: skip
WEB = [
    *STARTING, "listen", "ready", "accept", "request", "application", "body", "response", "answered", "backlog",
    "drain", "cleanup_host",
]  # fmt: skip
# A moment of the end comes after the TERM that the test sends; the second one must change nothing.
OF_THE_END = {"cancel", "drain", "cleanup_host", "close", "backlog"}
WHILE_SERVING = {"consume", "handler", "commit", "spawned", "reply", "ack"}
WEB_SERVING = ("accept", "request", "application", "body", "response", "answered")


def prepare(folder: Path) -> None:
    """Write the manager's module, which services are started with, into `folder`."""
    (folder / "moments.py").write_text(textwrap.dedent(MODULE.format(wrapped=WRAPPED)))


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A nova-broker, to which this process is led as well; its URL."""
    arguments = ["--port=0", f"--port_file={folder}/port", f"--password_file={folder}/password"]
    with ServiceProcess("nova-broker", *arguments, f"--state_path={folder}") as process:
        process.wait_ready()
        url = f"amqp://127.0.0.1:{(folder / 'port').read_text().strip()}/"
        with FLAGS.override(broker=url, broker_password_file=f"{folder}/password"):
            yield url
            rpc.cleanup()


def pass_queue(folder: Path, url: str, terms: int, moments: Collection[str] = QUEUE, *flags: str) -> None:
    """A service on the queue for each moment: all end clean, no effect is half done, callers are answered.

    Raises `AssertionError`, `TimeoutError`.
    """
    port = int(url.rstrip("/").rpartition(":")[2])
    proxy = Proxy(("127.0.0.1", port))
    serving, ending = WHILE_SERVING & {*moments}, (OF_THE_END - {"backlog"}) & {*moments}
    with contextlib.closing(proxy), contextlib.ExitStack() as stack:
        services = {
            moment: stack.enter_context(
                _start(
                    folder, "Queue", moment, terms, *_to_broker(folder, _port_for(moment, port, proxy)), *flags
                )
            )
            for moment in moments
        }
        for moment in sorted(serving | ending | ({"reconnect"} & {*moments})):
            services[moment].wait_ready()
        proxy.cut()
        answers = {moment: green.spawn(_poke, moment) for moment in serving}
        for moment in sorted(ending):
            services[moment].signal("TERM")
        results = {moment: answer.wait() for moment, answer in answers.items()}
        for moment, service in services.items():
            _check(service, moment)
        for moment, result in results.items():
            count = _count_pokes(services[moment])
            # What was begun is done and answered; what was not is still in the queue, its caller waits.
            assert (result, count) == ("poked", 1) or (moment == "consume" and count == 0), (
                moment,
                result,
                count,
            )


def pass_web(folder: Path, terms: int, moments: Collection[str] = WEB, *flags: str) -> None:
    """A web service for each moment: all end clean, whoever asked has the whole answer.

    Raises `AssertionError`, `TimeoutError`.
    """
    serving = [m for m in WEB_SERVING if m in moments]
    ending = [m for m in ("backlog", "drain", "cleanup_host") if m in moments]
    with contextlib.ExitStack() as stack:
        services = {m: stack.enter_context(_start(folder, "Web", m, terms, *flags)) for m in moments}
        for moment in serving + ending:
            services[moment].wait_ready()
        for moment in serving:
            assert _ask(services[moment]) == b"<body>", moment
        for moment in ending:
            services[moment].signal("TERM")
        for moment, service in services.items():
            _check(service, moment)


def _port_for(moment: str, port: int, proxy: Proxy) -> int:
    """Only whoever is to lose its connection comes through the proxy."""
    return proxy.port if moment == "reconnect" else port


def _to_broker(folder: Path, port: int) -> list[str]:
    return [f"--broker=amqp://127.0.0.1:{port}/", f"--broker_password_file={folder}/password"]


def _start(folder: Path, kind: str, moment: str, terms: int, *arguments: str) -> ServiceProcess:
    topic = moment.replace(" ", "").replace("_", "")
    return ServiceProcess(
        f"nova-{topic}",
        f"--{topic}_manager=moments.{kind}",
        f"--moment={moment}",
        f"--terms={terms}",
        *arguments,
        pythonpath=str(folder),
        env={"NOVA_HOST": topic},
    )


def _check(service: ServiceProcess, moment: str) -> None:
    code = service.wait()
    assert f"TERM at {moment}\n" in service.log, f"{moment} never came:\n{service.log}"
    assert code == 0, f"{moment}: {code}\n{service.log}"
    assert "Traceback" not in service.log, f"{moment}:\n{service.log}"


def _poke(moment: str) -> Any:
    message = {"method": "poke", "args": {}}
    try:
        return rpc.call(context.get_admin_context(), moment.replace("_", ""), message, timeout=3)
    except (rpc.RPCTimeout, rpc.NoSuchTopic) as error:
        return error


def _count_pokes(service: ServiceProcess) -> int:
    with contextlib.closing(sqlite3.connect(service.state_path / "nova.sqlite")) as database:
        return int(database.execute("SELECT count(*) FROM services WHERE binary = 'poked'").fetchone()[0])


def _ask(service: ServiceProcess) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port_of_web(service), timeout=10)
    try:
        connection.request("POST", "/", b"body")
        return connection.getresponse().read()
    finally:
        connection.close()


def port_of_web(service: ServiceProcess) -> int:
    """Where it listens, as its log says."""
    service.wait_log("listens on port ")
    return int(service.log.split("listens on port ")[1].split()[0])
