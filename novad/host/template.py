"""Forking Python services from a process that has imported already what they need.

A service that may be preloaded is an order to the template of its kind: one process for each interpreter, list of
modules, directory and base environment (`novad.host.forker` is its program). The template answers with a pid that is
a child of ours like any other; the service begins when we let it go.

Nothing depends on a template. Where there is none, where it cannot import, dies or does not answer in time, the order
is handed back and the service is executed with an interpreter of its own; why is said once. A template whose files
changed is replaced, and its orders go to its successor: that imports what the service would have to import itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from novad.core.spec import Python
from novad.host import clock
from novad.host.hub import Timer, Watcher
from novad.host.launch import Command, SpawnError, spawn

ANSWER_S = 2.0
# Imports that take this long take as long in a service of its own; waiting for them costs nothing.
LOAD_S = 10.0
# A template that could not be used is not tried again before.
RETRY_S = 10.0
# Orders under way at once: what is more waits here, where a death of the template loses nothing.
WINDOW = 4
MESSAGE_BYTES = 65536
PROGRAM = f"{os.path.dirname(os.path.abspath(__file__))}/forker.py"
# As `-c`, so that flags and sys.path are those of a service; a script would put its own directory there.
BOOT = "import sys; path = sys.argv[1]; del sys.argv[1]; exec(compile(open(path).read(), path, 'exec'))"
# What a template is given for the titles and environments of its services on top of its own (see forker.Memory).
ROOM = "NOVAD_ROOM"
TITLE_ROOM = " " * 512
ENVIRONMENT_ROOM = "-" * 8192
# Variables that act when the interpreter starts or a module is imported: after a fork it would be too late for them.
EARLY = ("PYTHON", "EVENTLET_", "LD_", "LC_", "LANG", "MALLOC_", "OPENSSL_", "HOME")


@dataclass(frozen=True, slots=True)
class Kind:
    """What services have in common that can be forked from one template."""

    python: str
    preload: tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A service to be forked: what it is to run, the equivalent command with its one passed descriptor (the lock).

    `answer` gets its pid, or None where the command must be executed after all. Raises `ProcessLookupError` in the
    first case when that process is gone already, or another `OSError`.
    """

    name: str
    python: Python
    command: Command
    answer: Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class House:
    """Where templates live: who must know their pids, and where a reader finds why one is not used."""

    add_helper: Callable[[int], None]
    remove_helper: Callable[[int], None]
    remark: Callable[[str], None]


class Templates:
    """The templates of a cluster, each started when it is first needed."""

    def __init__(self, house: House) -> None:
        self._house = replace(house, remark=self._remark)
        self._remark_to_house = house.remark
        self._said: set[str] = set()
        self._env: dict[str, str] = {}
        self._preload: tuple[str, ...] = ()
        self._templates: dict[Kind, Template] = {}
        self._not_before_s: dict[Kind, float] = {}

    def configure(self, env: Mapping[str, str], preload: tuple[str, ...]) -> None:
        """The base environment and the modules of a new definition; templates of another one end."""
        if (self._env, self._preload) != (env, preload):
            self._env, self._preload = dict(env), preload
            self._not_before_s.clear()
            self._said.clear()
            for order in [order for template in self._templates.values() for order in template.close()]:
                order.answer(None)
            self._templates.clear()

    def warm(self, python: str, cwd: str, env: Mapping[str, str]) -> None:
        """Begin to import for a service that will soon be started."""
        self._find(self._kind(python, cwd, env))

    def fork(self, order: Order) -> bool:
        """Take the order; False where there is no template for it, nor will be."""
        command = order.command
        template = self._find(self._kind(command.argv[0], command.cwd, command.env))
        if template is not None:
            template.add(order)
        return template is not None

    def close(self) -> None:
        """End all templates; what was ordered is not answered any more."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()

    def _kind(self, python: str, cwd: str, own: Mapping[str, str]) -> Kind:
        env = {key: value for key, value in self._env.items() if not key.startswith(EARLY)}
        env |= {key: value for key, value in own.items() if key.startswith(EARLY)}
        return Kind(python, self._preload, cwd, tuple(sorted(env.items())))

    def _find(self, kind: Kind) -> Template | None:
        template = self._templates.get(kind)
        if template is None and kind.preload and clock.now_s() >= self._not_before_s.get(kind, 0.0):
            template = self._start(kind)
        return template

    def _start(self, kind: Kind) -> Template | None:
        try:
            template = Template(kind, self._house, lambda end: self._ended(kind, end))
        except (SpawnError, OSError) as error:
            self._failed(kind, str(error))
            return None
        self._templates[kind] = template
        return template

    def _remark(self, text: str) -> None:
        """Say it once: a process that crashes again and again has the same reason each time."""
        if text not in self._said:
            self._said.add(text)
            self._remark_to_house(text)

    def _failed(self, kind: Kind, reason: str) -> None:
        self._not_before_s[kind] = clock.now_s() + RETRY_S
        self._house.remark(f"Python services get interpreters of their own: {reason}")

    def _ended(self, kind: Kind, end: End) -> None:
        self._templates.pop(kind, None)
        successor = None
        if end.is_failure:
            self._failed(kind, end.reason)
        else:
            self._remark_to_house(f"the template is replaced: {end.reason}")
            successor = self._start(kind)
        for order in end.orders:
            if successor is not None:
                successor.add(order)
            else:
                order.answer(None)


@dataclass(frozen=True, slots=True)
class End:
    """A template is used no longer: why, whether something is wrong, and what it has not done."""

    reason: str
    is_failure: bool
    orders: list[Order]


class Template:
    """One template process. Raises `SpawnError` or `OSError` where it cannot be started."""

    def __init__(self, kind: Kind, house: House, on_end: Callable[[End], None]) -> None:
        self._house = house
        self._on_end = on_end
        self._is_ready = False
        self._is_open = True
        self._waiting: deque[Order] = deque()
        self._sent: dict[int, tuple[Order, int]] = {}
        self._number = 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            self._pid = spawn(_command(kind, theirs.fileno()))
        except (SpawnError, OSError):
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._pidfd = os.pidfd_open(self._pid)
        house.add_helper(self._pid)
        self._death = Watcher(self._pidfd, self._died)
        self._news = Watcher(self._socket.fileno(), self._readable)
        self._timer: Timer | None = None
        self._expect(LOAD_S)

    def add(self, order: Order) -> None:
        """Fork a service as soon as possible."""
        self._waiting.append(order)
        self._send()

    # -- to the template

    def _send(self) -> None:
        while self._is_ready and self._waiting and len(self._sent) < WINDOW:
            if not self._sent:
                self._expect(ANSWER_S)
            order = self._waiting.popleft()
            try:
                self._send_one(order)
            except OSError as error:
                # Its environment is longer than a message can be, we have no descriptor left, or nobody listens.
                self._house.remark(f"{order.name} gets an interpreter of its own: {error.strerror}")
                order.answer(None)

    def _send_one(self, order: Order) -> None:
        """Raises `OSError`."""
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        self._number += 1
        command = order.command
        fds = [go_read, *command.pass_fds, command.stdout, command.stderr, *(fd for _, fd in command.listen)]
        try:
            socket.send_fds(self._socket, [_request(self._number, order)], fds)
        except OSError:
            os.close(go_write)
            raise
        finally:
            os.close(go_read)
        self._sent[self._number] = order, go_write

    def _expect(self, within_s: float) -> None:
        """Something must come within this time."""
        self._unexpect()
        self._timer = Timer(within_s, lambda: self.give_up(f"the template was silent for {within_s:g} s"))

    def _unexpect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- from the template

    def _readable(self) -> None:
        while self._is_open:
            try:
                data = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # The news of its death is on its way, by the pidfd.
                self._news.close()
                return
            self._handle(json.loads(data))

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"ready": True}:
                self._is_ready = True
            case {"failed": str(reason)}:
                self.give_up(reason)
                return
            case {"stale": str(path)}:
                self.give_up(f"{path} changed", is_failure=False)
                return
            case {"id": int(number), "pid": int(pid)}:
                self._born(number, pid)
            case {"id": int(number), "error": str(reason)}:
                order, go_write = self._sent.pop(number)
                os.close(go_write)
                self._house.remark(f"{order.name} gets an interpreter of its own: {reason}")
                order.answer(None)
        self._unexpect()
        if self._sent:
            self._expect(ANSWER_S)
        self._send()

    def _born(self, number: int, pid: int) -> None:
        order, go_write = self._sent.pop(number)
        try:
            order.answer(pid)
            os.write(go_write, b"g")
        except BrokenPipeError:
            # It was killed in between; its death is reported like any other.
            pass
        except OSError:
            order.answer(None)
        finally:
            os.close(go_write)

    # -- the end

    def give_up(self, reason: str, is_failure: bool = True) -> None:
        """Use it no longer; hand back what it has not done."""
        orders = self.close()
        self._on_end(End(reason, is_failure, orders))

    def close(self) -> list[Order]:
        """End the process; returns what it has not done. What it forks now never begins."""
        if not self._is_open:
            return []
        self._is_open = False
        self._unexpect()
        self._news.close()
        self._socket.close()
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        orders = [order for order, _ in self._sent.values()] + list(self._waiting)
        for _, go_write in self._sent.values():
            os.close(go_write)
        self._sent.clear()
        self._waiting.clear()
        return orders

    def _died(self) -> None:
        self._death.close()
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self._house.remove_helper(self._pid)
        if self._is_open:
            # It may have said why before.
            self._readable()
        if self._is_open:
            self.give_up("the template died")
        os.close(self._pidfd)


def _command(kind: Kind, control_fd: int) -> Command:
    """What it prints while it imports goes where novad's own words go."""
    argv = [kind.python, "-c", BOOT, PROGRAM, str(control_fd), *kind.preload, TITLE_ROOM]
    env = {**dict(kind.env), ROOM: ENVIRONMENT_ROOM}
    return Command(argv, kind.cwd, env, 1, 2, pass_fds=(control_fd,))


def _request(number: int, order: Order) -> bytes:
    command = order.command
    env = dict(command.env)
    if command.listen:
        env["LISTEN_FDS"] = str(len(command.listen))
        env["LISTEN_FDNAMES"] = ":".join(name for name, _ in command.listen)
    message = {
        "id": number,
        "name": order.name,
        "target": order.python.target,
        "args": order.python.args,
        "argv": list(command.argv),
        "env": env,
        "cwd": command.cwd,
        "limits": list(command.limits.items()),
        "nice": command.nice,
    }
    return json.dumps(message).encode()
