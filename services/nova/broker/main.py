"""nova-broker: the broker as a process of its own.

It needs no eventlet, so it is ready in a tenth of a second. Flags come from the command line, then `NOVA_<NAME>`,
then the defaults. READY=1 is said once it accepts; TERM and INT close every connection with 320
CONNECTION_FORCED, write the journal and end with 0; QUIT ends at once (3); USR1 dumps the stack.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from nova.broker import admin
from nova.broker import broker as brokers
from nova.broker.connection import Connection
from nova.broker.errors import JournalError
from nova.broker.journal import Journal
from nova.broker.litter import Litter
from nova.broker.loop import Loop

LOG = logging.getLogger("nova.broker")

EXIT_CLEAN, EXIT_FAILED, EXIT_HARD_STOP, EXIT_PERMANENT, EXIT_TEMPORARY = 0, 1, 3, 100, 111
USER = "nova"
STOP_TIMEOUT_S = 2.0  # for clients to answer connection.close
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BACKLOG = 1024
MIB = 1024 * 1024


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Every flag `--name` can be given as `NOVA_NAME` in the environment."""
    parser = argparse.ArgumentParser(
        prog="nova-broker", description="the embedded AMQP 0-9-1 broker of nova", allow_abbrev=False
    )

    def flag(name: str, default: object, help: str, kind: type = str) -> None:
        given = environ.get(f"NOVA_{name.upper()}")
        value = default if given is None else given
        parser.add_argument(f"--{name}", default=value, type=kind, help=f"{help} (default: {default})")

    def switch(name: str, default: bool, help: str) -> None:
        given = environ.get(f"NOVA_{name.upper()}", str(default)).lower()
        value = given not in ("0", "false", "no", "off", "")
        action = argparse.BooleanOptionalAction
        parser.add_argument(f"--{name}", default=value, action=action, help=help)

    flag("listen", "127.0.0.1", "address to listen on")
    flag("port", 5672, "TCP port; 0 takes a free one", int)
    flag("port_file", "", "file to write the port into, once it accepts")
    flag("state_path", "./nova-state", "folder of all state; the journal is in its subfolder broker")
    flag("password_file", "", f"file with the password of user {USER}; made with a random one if it is missing")
    flag("broker_password_file", "", "the same, as the services call it")
    switch("allow_guest", False, "let guest/guest in")
    switch("strict", True, "refuse what RabbitMQ 4.3 refuses: queues neither durable nor exclusive")
    switch("journal", True, "keep durable queues and persistent messages on disk")
    flag("vhosts", "/", "virtual hosts, separated by commas")
    flag("memory_limit_mib", 1024, "messages in memory above which publishers are held", int)
    flag("disk_limit_mib", 2048, "size of the journal above which persistent messages are refused", int)
    flag("engine", "own", "own, or rabbitmq: a private node of the installed rabbitmq-server")
    flag("heartbeat", 60, "seconds between heartbeats that is proposed to clients; 0 for none", int)
    flag("consumer_timeout", 1800.0, "seconds a consumer may keep a message unacknowledged; 0 for ever", float)
    return parser


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Runs until a signal ends it. The exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        options, unknown = parser(environ).parse_known_args(argv)
    except SystemExit as stop:
        return EXIT_CLEAN if not stop.code else EXIT_PERMANENT
    if unknown:
        print(f"nova-broker: {_objection(unknown[0], options)}", file=sys.stderr)
        return EXIT_PERMANENT
    if options.engine == "rabbitmq":
        return run_rabbitmq(options)
    if options.engine != "own":
        LOG.error("--engine=%s: there are own and rabbitmq", options.engine)
        return EXIT_PERMANENT
    try:
        broker = make_broker(options)
        listener = listen(options.listen, options.port)
        admin_listener = admin.listen(folder(options))
    except JournalError as error:
        LOG.error("%s", error)
        return EXIT_TEMPORARY
    except OSError as error:
        LOG.error("cannot start: %s", error)
        return EXIT_TEMPORARY
    raise_descriptor_limit()
    process = Process(broker, listener)
    process.loop.listen(admin_listener, lambda peer: admin.AdminConnection(broker))
    if options.port_file:
        write_atomically(Path(options.port_file), f"{listener.getsockname()[1]}\n")
    notify("READY=1")
    LOG.info("accepting on %s:%d", *listener.getsockname()[:2])
    return process.run()


def _objection(word: str, options: argparse.Namespace) -> str:
    """Why a word of the command line is refused, as the services say it."""
    if not word.startswith("--"):
        return f"{word!r}: a service takes flags only"
    from nova import flags

    return flags.objection(word[2:].partition("=")[0].replace("-", "_"), vars(options))


def raise_descriptor_limit() -> None:
    """As many connections as the system allows; the usual soft limit of 1024 exists for select(2) only."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_broker(options: argparse.Namespace) -> brokers.Broker:
    """Raises `JournalError` and `OSError`."""
    state = folder(options)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = {USER: password_of(options)}
    if options.allow_guest:
        users["guest"] = "guest"
    settings = brokers.Settings(
        memory_limit_bytes=options.memory_limit_mib * MIB,
        disk_limit_bytes=options.disk_limit_mib * MIB,
        heartbeat_s=options.heartbeat,
        consumer_timeout_s=options.consumer_timeout,
        is_strict=options.strict,
    )
    return brokers.Broker(
        users,
        settings=settings,
        journal=Journal(state) if options.journal else None,
        vhosts=tuple(dict.fromkeys(["/", *filter(None, options.vhosts.split(","))])),
        now_s=time.monotonic(),
    )


def folder(options: argparse.Namespace) -> Path:
    """Where the journal, the password and the admin socket are."""
    return Path(options.state_path) / "broker"


def password_of(options: argparse.Namespace) -> str:
    return password(Path(options.password_file or options.broker_password_file or folder(options) / "password"))


def password(path: Path) -> str:
    """The password in the file, which is made, readable for its owner alone, where it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, os.urandom(24).hex() + "\n")
    return path.read_text().strip()


def write_atomically(path: Path, text: str) -> None:
    """Nobody ever reads half of it, and nobody else can read it at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(fresh, path)


def listen(address: str, port: int, sockets: ModuleType = socket) -> socket.socket:
    """Raises `OSError` that names the address."""
    family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
    listener: socket.socket = sockets.socket(family, sockets.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{address}:{port}: {error.strerror}") from error
    return listener


def run_rabbitmq(options: argparse.Namespace) -> int:
    """The same process with another engine inside. The exit code."""
    from nova.broker import engine

    signals = catch_signals()
    try:
        folder(options).mkdir(mode=0o700, parents=True, exist_ok=True)
        port = options.port or engine.free_port()
        home = folder(options) / "rabbitmq"
        node = engine.Node(home.resolve(), options.listen, port, USER, password_of(options))
        started = engine.Engine(node)
        if engine.wait_until_ready(started, signals):
            if options.port_file:
                write_atomically(Path(options.port_file), f"{port}\n")
            notify("READY=1")
            LOG.info("RabbitMQ accepts on %s:%d", options.listen, port)
        return engine.serve(started, signals)
    except (OSError, engine.EngineError) as error:
        LOG.error("cannot start RabbitMQ: %s", error)
        return EXIT_TEMPORARY


def catch_signals() -> socket.socket:
    """A socket from which the numbers of this process's signals can be read, and nothing else happens."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in SIGNALS:
        signal.signal(number, _ignore)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    return reader


class Process:
    """The loop with the signals of its process."""

    def __init__(self, broker: brokers.Broker, listener: socket.socket) -> None:
        self.broker = broker
        self.loop = Loop(broker)
        self.loop.listen(listener, self._connection)
        self._litter = Litter()
        self._accepted = 0
        self._stop_at_s: float | None = None
        self._exit_code: int | None = None
        self._signals = catch_signals()
        self.loop.watch(self._signals.fileno(), self._on_signals)

    def run(self) -> int:
        loop = self.loop
        while self._exit_code is None:
            loop.turn(self._timeout_s())
            self._litter.end_turn(self.broker.memory_bytes, self._accepted - len(self.broker.connections))
            if self._stop_at_s is not None and (loop.is_quiet or self.broker.now_s >= self._stop_at_s):
                break
        for number in SIGNALS:
            # The interpreter takes its handlers back before it ends; a second TERM would change the exit code.
            signal.signal(number, signal.SIG_IGN)
        loop.close()
        return self._finish() if self._exit_code is None else self._exit_code

    def _connection(self, peer: str) -> Connection:
        self._accepted += 1
        return Connection(self.broker, peer)

    def _timeout_s(self) -> float | None:
        timeout_s = self.loop.timeout_s()
        if self._stop_at_s is None:
            return timeout_s
        left_s = max(0.0, self._stop_at_s - time.monotonic())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def _on_signals(self) -> None:
        for number in self._signals.recv(4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGQUIT:
                self._exit_code = EXIT_HARD_STOP
            elif number == signal.SIGUSR1:
                import faulthandler

                faulthandler.dump_traceback()
            elif number == signal.SIGUSR2:
                is_debug = LOG.level == logging.DEBUG
                LOG.setLevel(logging.INFO if is_debug else logging.DEBUG)

    def _stop(self) -> None:
        if self._stop_at_s is not None:
            return
        LOG.info("stopping: %d connections are closed", len(self.broker.connections))
        notify("STOPPING=1")
        self._stop_at_s = self.broker.now_s + STOP_TIMEOUT_S
        self.loop.begin_stop()

    def _finish(self) -> int:
        """Writes what is left. The exit code."""
        try:
            self.broker.close()
        except OSError as error:
            LOG.error("the journal could not be written: %s", error)
            return EXIT_FAILED
        return EXIT_CLEAN


def _ignore(number: int, frame: object) -> None:
    """The number arrives through the wake-up descriptor."""


def notify(text: str) -> None:
    """Tells whoever started us, by systemd's protocol (sd_notify(3)) and s6's newline, as far as they asked."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
    fd = os.environ.get("NOTIFY_FD", "")
    if fd.isdigit() and text.startswith("READY=1"):
        with contextlib.suppress(OSError):
            os.write(int(fd), b"\n")
            os.close(int(fd))
