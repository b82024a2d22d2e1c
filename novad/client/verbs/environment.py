"""`status --env SVC`: each variable as the running process has it, where it came from, and what is no longer so.

What a process has is read from /proc/PID/environ; what it would have if it were started now comes from the compiler.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novad.client.app import App
from novad.client.compiling import running_cluster, taken_ports
from novad.client.render.words import shorten
from novad.client.verbs.check import compile_plain
from novad.core.errors import UsageError
from novad.core.secret import shown

# novad gives these to every child itself, or puts something in front of them.
OWN = ("NOVAD_SERVICE", "NOVAD_REPLICA", "NOVAD_ID", "NOVAD_SOCKET", "NOTIFY_SOCKET", "WATCHDOG_USEC", "PYTHONPATH",
       "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "PYTHONUNBUFFERED")  # fmt: skip
REMOVED = "(removed)"


@dataclass(frozen=True, slots=True)
class Variable:
    """`value` is None where the process does not have it; `drift` says what is otherwise in the files now."""

    name: str
    value: str | None
    origin: str
    drift: str


def show_environments(app: App, names: tuple[str, ...], processes: list[dict[str, Any]]) -> int:
    """Exit 1 where a named process does not run. Secrets are shown by their length alone."""
    if not names:
        raise UsageError("--env: of which service?", f"{app.command_name()} status --env {processes[0]['name']}")
    found = {process["name"]: variables(app, process) for process in processes}
    if app.options.json:
        rows = {
            name: [{"name": item.name, "value": item.value, "origin": item.origin, "drift": item.drift or None}
                   for item in items]
            for name, items in found.items()
        }  # fmt: skip
        app.print_json({"environments": rows})
    else:
        for number, (name, items) in enumerate(found.items()):
            app.terminal.out(("\n" if number else "") + "\n".join(table(app, name, items)))
    return 0 if all(process["pid"] for process in processes) else 1


def variables(app: App, process: dict[str, Any]) -> list[Variable]:
    """All variables by name, those of the shell that ran `up` too."""
    running = running_cluster(app)
    environ = running.env if running else app.environ
    rows = app.compiler.show(
        app.place(missing_ok=False), process["name"], profile=app.profile, taken_ports=taken_ports(running),
        environ=environ,
    )  # fmt: skip
    compiled = {
        key.removeprefix("env."): (value, origin) for key, value, origin in rows if key.startswith("env.")
    }
    marked = compile_plain(app).secrets
    return compare(read_environ(process["pid"]) if process["pid"] else {}, compiled, marked)


def read_environ(pid: int) -> dict[str, str]:
    """proc_pid_environ(5); nothing where the process is gone."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in data.split(b"\0") if b"=" in item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def compare(
    has: dict[str, str], compiled: dict[str, tuple[str, str]], marked: Sequence[str] = ()
) -> list[Variable]:
    """The variables of a process beside those that it would get now. Pure."""
    found = []
    for name in sorted({*has, *compiled}):
        value = has.get(name)
        wanted, origin = compiled.get(name, (REMOVED, "novad" if name in OWN else "no longer anywhere"))
        drift = ""
        if name in OWN:
            origin = "novad" if name not in compiled else f"{origin}, and novad"
        elif wanted == REMOVED and value is not None:
            drift = "not set any more"
        elif wanted != REMOVED and has and value != wanted:
            text = shown(name, wanted, marked)
            drift = f"now {text}" if value is not None else f"not there yet: {text}"
        if value is not None or drift:
            found.append(Variable(name, None if value is None else shown(name, value, marked), origin, drift))
    return found


def table(app: App, name: str, items: list[Variable]) -> list[str]:
    paint = app.terminal.paint
    inherited = (
        [] if app.options.verbose else [item for item in items if item.origin == "environment" and not item.drift]
    )
    rows = [item for item in items if item not in inherited]
    if not items:
        return [f"{paint.service(name, name)}  does not run"]
    width = min(32, max((len(item.name) for item in rows), default=0))
    lines = [paint.service(name, name)]
    for item in rows:
        value = shorten(item.value or "", 60)
        drift = f"  {paint(item.drift, 'yellow')}" if item.drift else ""
        lines.append(f"  {item.name.ljust(width)}  {value}  {paint(item.origin, 'dim')}{drift}")
    if inherited:
        lines.append(paint(f"  and {len(inherited)} variables of the shell that ran `up`: -v shows them", "dim"))
    drifted = sum(1 for item in items if item.drift)
    if drifted:
        lines.append(paint(f"  {drifted} differ from the files: {app.command_name()} reload", "yellow"))
    return lines
