"""From drafts to the specification of each process: every text expanded, every path absolute.

It looks at the file system once: whether a working directory exists.
"""

from __future__ import annotations

import os
import re
import shlex
import warnings
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from novad.config.interpolate import Unresolved, names, split_words
from novad.config.model import Health, Ready, Service
from novad.config.position import Path
from novad.config.report import Fault
from novad.config.tree import Node
from novad.config.validate import Declarations, Declared, dependencies
from novad.config.world import Draft, Misplaced, World
from novad.core import spec

ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
NO_URL = "not a URL such as http://127.0.0.1:8774/healthz"
PRINTABLE = re.compile(r"[!-~]*")  # what a request line may hold
NUMBER = re.compile(r"[0-9]{1,9}")
DURING_RUN = ("run_dir",)  # names of directories that need not exist yet


@dataclass
class Builder:
    """Builds the processes of one cluster and keeps the faults it meets; a process with faults is not built."""

    world: World
    declared: Declarations
    dir: str
    log_dir: str
    python: str
    faults: list[Fault] = field(default_factory=list)

    def process(self, draft: Draft) -> spec.ProcessSpec | None:
        """The specification of a process, or None after noting what is wrong with it."""
        before = len(self.faults)
        model, service = draft.model, self.declared.services[draft.service]
        argv, python = self._argv(draft)
        made = spec.ProcessSpec(
            name=draft.name,
            service=draft.service,
            replica=draft.n,
            argv=argv,
            cwd=self._cwd(draft),
            log=self._log(draft),
            env=self._environment(draft),
            after=tuple(dependency for _, dependency in dependencies(service, self.declared)),
            restart_with=tuple(name for name in model.restart_with if self.declared.owner(name)),
            ready=self._ready(draft, model.ready),
            ready_timeout_s=model.ready_timeout,
            start_s=model.ready_after,
            health=self._health(draft, model.health),
            restart=cast(spec.Restart, model.restart or ("no" if model.oneshot else "on-failure")),
            oneshot=model.oneshot,
            autostart=model.autostart,
            backoff=spec.Backoff(model.backoff.min, model.backoff.max, model.backoff.reset_after),
            give_up_after=model.give_up_after,
            stop=spec.Stop(model.stop.signal, model.stop.timeout),
            reload_signal=model.signals.reload,
            ports=_ports(draft),
            url=self._url(draft),
            groups=self._groups(service),
            limits=dict(model.limits),
            nice=model.nice,
            python=python,
            watch=self._watch(model),
            watchdog_s=model.watchdog,
            description=self._text(draft, ("description",), model.description) or "",
            origin=str(service.node.origin),
        )
        return made if len(self.faults) == before else None

    def _text(self, draft: Draft | None, path: Path, text: str | None) -> str | None:
        """The expanded text of the value at `path` of the service; None where it is absent or at fault."""
        if text is None or draft is None:
            return None
        return self.expand(draft.node.nearest(path), text, draft)

    def expand(self, node: Node, text: str, draft: Draft | None) -> str | None:
        """The expanded text of `node`, or None after noting the fault."""
        try:
            return self.world.expand(node, text, draft)
        except Misplaced as error:
            self._misplaced(error)
            return None

    def _misplaced(self, error: Misplaced) -> None:
        node = error.node
        self.faults.append(Fault(error.message, node.origin.source, node.text_at(error.fragment), error.help))

    def _fault(self, draft: Draft, path: Path, message: str, *help: str) -> None:
        self.faults.append(draft.node.nearest(path).origin.fault(message, *help))

    def _argv(self, draft: Draft) -> tuple[tuple[str, ...], spec.Python | None]:
        model = draft.model
        if model.python is not None:
            return self._python(draft, model.python)
        if model.shell and isinstance(model.command, str):
            script = self._text(draft, ("command",), model.command)
            return ("/bin/sh", "-c", script or ""), None
        return self.command(draft.node.nearest(("command",)), model.command or [], draft), None

    def _python(self, draft: Draft, target: str) -> tuple[tuple[str, ...], spec.Python | None]:
        expanded = [self._text(draft, ("args", index), text) for index, text in enumerate(draft.model.args)]
        args = tuple(text for text in expanded if text is not None)
        module, _, function = target.partition(":")
        if function:
            start = ("-c", f"import sys, {module} as module; sys.exit(module.{function}())")
        else:
            start = ("-m", module)
        python = spec.Python(target, args) if draft.model.preload else None
        return (self.python, *start, *args), python

    def command(self, node: Node, command: str | list[str], draft: Draft | None) -> tuple[str, ...]:
        """The argument vector of a command, its program resolved against the directory of nova.toml."""
        if isinstance(command, str):
            try:
                pairs = [(node, word) for word in split_words(command, shlex.split)]
            except Unresolved as error:
                self._misplaced(Misplaced(error, node))
                return ()
            except ValueError as error:
                reason = "a quote is not closed" if "quotation" in str(error) else str(error).lower()
                self.faults.append(node.origin.fault(f"cannot split this command into words: {reason}"))
                return ()
        else:
            pairs = [(node.nearest((index,)), word) for index, word in enumerate(command)]
        words = [self.expand(at, word, draft) for at, word in pairs]
        argv = [word for word in words if word is not None]
        if len(argv) < len(words) or not argv:
            return ()
        if not argv[0]:
            self.faults.append(node.origin.fault("the program to run is an empty string"))
        return (self._program(argv[0]), *argv[1:])

    def _program(self, program: str) -> str:
        return os.path.normpath(os.path.join(self.dir, program)) if "/" in program else program

    def _cwd(self, draft: Draft) -> str:
        written = draft.model.cwd
        expanded = self._text(draft, ("cwd",), written)
        if written is None or expanded is None:
            return self.dir
        cwd = os.path.normpath(os.path.join(self.dir, expanded))
        if not names(written).intersection(DURING_RUN) and not os.path.isdir(cwd):
            what = "is not a directory" if os.path.exists(cwd) else "does not exist"
            help = ("`${env.HOME}` is your home directory",) if expanded.startswith("~") else ()
            self._fault(draft, ("cwd",), f"services.{draft.service}.cwd: {cwd} {what}", *help)
        return cwd

    def _log(self, draft: Draft) -> spec.Log:
        logs = draft.model.logs
        path = os.path.join(self.log_dir, f"{draft.name}.log")
        return spec.Log(path, logs.max, logs.keep, logs.attach, logs.drop, draft.model.pty)

    def _environment(self, draft: Draft) -> dict[str, str | None]:
        env: dict[str, str | None] = {}
        for name in draft.variables:
            try:
                env[name] = self.world.variable(draft, name)
            except Misplaced as error:
                self._misplaced(error)
        return env

    def _url(self, draft: Draft) -> str | None:
        try:
            return self.world.url(draft)
        except Misplaced as error:
            self._misplaced(error)
            return None

    def _groups(self, service: Declared) -> tuple[str, ...]:
        own = dict.fromkeys(service.model.groups)
        for name, group in self.declared.groups.items():
            if {service.name, *service.processes}.intersection(group.strings()):
                own[name] = None
        return tuple(own)

    def _watch(self, model: Service) -> spec.Watch | None:
        if model.watch is None or not model.watch.globs:
            return None
        return spec.Watch(tuple(model.watch.globs), model.watch.debounce)

    def _ready(self, draft: Draft, ready: Ready | None) -> spec.Probe | None:
        if ready is None:
            return None
        log = self._text(draft, ("ready", "log"), ready.log)
        if log is not None:
            self._check_pattern(draft, log)
        return spec.Probe(
            notify=ready.notify,
            notify_fd=ready.notify_fd,
            http=self._http(draft, "ready", ready),
            tcp=self._tcp(draft, "ready", ready.tcp),
            exec=self._exec(draft, "ready", ready.exec),
            log=log,
        )

    def _check_pattern(self, draft: Draft, pattern: str) -> None:
        """Output is bytes, and so is the expression that is searched in it."""
        try:
            with warnings.catch_warnings(action="ignore"):
                re.compile(pattern.encode())
        except (re.error, ValueError, RecursionError, OverflowError) as error:
            self._fault(draft, ("ready", "log"), f"not a regular expression: {error}")

    def _health(self, draft: Draft, health: Health | None) -> spec.Health | None:
        if health is None:
            return None
        probe = spec.Probe(
            http=self._http(draft, "health", health),
            tcp=self._tcp(draft, "health", health.tcp),
            exec=self._exec(draft, "health", health.exec),
        )
        return spec.Health(probe, health.period, health.timeout, health.failures)

    def _exec(self, draft: Draft, key: str, command: str | list[str] | None) -> tuple[str, ...] | None:
        if command is None:
            return None
        return self.command(draft.node.nearest((key, "exec")), command, draft) or None

    def _http(self, draft: Draft, key: str, probe: Ready | Health) -> spec.HttpProbe | None:
        text = self._text(draft, (key, "http"), probe.http)
        if text is None:
            return None
        low, high = probe.status
        if "://" in text:
            if reason := _bad_url(text):
                self._fault(draft, (key, "http"), f"services.{draft.service}.{key}.http: {reason}")
            return spec.HttpProbe(text, low, high)
        name, _, path = text.partition("/")
        if not PRINTABLE.fullmatch(path):
            self._fault(draft, (key, "http"), f"services.{draft.service}.{key}.http: not a path: {path!a}")
        port = self._port(draft, (key, "http"), name)
        return spec.HttpProbe(f"http://127.0.0.1:{port}/{path}", low, high) if port else None

    def _tcp(self, draft: Draft, key: str, text: str | None) -> spec.TcpProbe | None:
        text = self._text(draft, (key, "tcp"), text)
        if text is None:
            return None
        match = ENDPOINT.fullmatch(text)
        if match or NUMBER.fullmatch(text):
            host, number = (match["host"].strip("[]"), match["port"]) if match else ("127.0.0.1", text)
            if not 1 <= int(number) <= 65535:
                where = f"services.{draft.service}.{key}.tcp"
                self._fault(draft, (key, "tcp"), f"{where}: a port is a number from 1 to 65535, got {number}")
            return spec.TcpProbe(host, int(number))
        port = self._port(draft, (key, "tcp"), text)
        return spec.TcpProbe("127.0.0.1", port) if port else None

    def _port(self, draft: Draft, path: Path, name: str) -> int | None:
        """The number of a port of the process, of the first one where `name` is empty; None after a fault."""
        ports = draft.ports
        found = ports.get(name) if name else next(iter(ports.values()), None)
        if found is None:
            where = f"services.{draft.service}.{'.'.join(map(str, path))}"
            known = f"its ports: {', '.join(ports)}" if ports else f"give [services.{draft.service}] `ports`"
            what = f"there is no port `{name}`" if name else "the service has no port"
            self._fault(draft, path, f"{where}: {what}", known)
        return found


def _bad_url(url: str) -> str | None:
    """Why a probe cannot ask this URL; None where it can."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return NO_URL
    if parts.scheme != "http":
        return f"a probe speaks http, not {parts.scheme}; `tcp` or `exec` can look at other services"
    if not parts.hostname or port == 0 or not PRINTABLE.fullmatch(url):
        return NO_URL
    return None


def _ports(draft: Draft) -> dict[str, spec.Port]:
    listen = draft.model.listen
    ports = {}
    for name, number in draft.ports.items():
        wish = draft.model.ports.get(name, "auto")
        is_fixed = wish != "auto" and not wish.endswith("?")
        passed = listen if isinstance(listen, bool) else name in listen
        ports[name] = spec.Port(number, is_fixed, passed)
    return ports
