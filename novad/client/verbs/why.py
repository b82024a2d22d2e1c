"""`novad why`: asks the daemon, looks up what this machine knows (who holds a port), and tells it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novad.client.app import App
from novad.client.compiling import running_cluster
from novad.client.link import Link
from novad.client.machine import oom_kills, port_owner
from novad.client.render.hints import Facts, hints_for, mentioned_ports
from novad.client.render.why import WhyStyle, is_crash, ok_line, why_report
from novad.core.errors import UsageError
from novad.core.secret import shown_words

UNWELL = ("waiting", "starting", "backoff", "failed")


def run(app: App, names: tuple[str, ...], lines: int, run_number: int | None, show_all: bool) -> int:
    index = exit_index(run_number)
    with app.link() as link:
        processes = link.request("status", names=[], usage=False)["processes"]
        wanted = list(names)
        if show_all and not names:
            wanted = [item["name"] for item in processes if item["state"] in UNWELL]
        entries = link.request("why", names=wanted)["processes"] if wanted or not show_all else []
        if not entries and not show_all:
            # Nothing crashed: then what is being waited for is the answer.
            wanted = [item["name"] for item in processes if item["state"] in UNWELL]
            entries = link.request("why", names=wanted)["processes"] if wanted else []
    if app.options.json:
        app.print_json({"processes": [{**entry, "argv": shown_words(entry["argv"])} for entry in entries]})
        return 0
    if not entries:
        app.terminal.out(ok_line(app.terminal.paint))
    for number, entry in enumerate(entries):
        app.terminal.out(("\n" if number else "") + "\n".join(report(app, entry, processes, lines, index)))
    return 0


def exit_index(run_number: int | None) -> int:
    """`--run -1` is the last exit, -2 the one before."""
    if run_number is None:
        return 0
    if run_number >= 0:
        raise UsageError(
            f"--run {run_number}: counts backwards", "novad why --run -2 is the exit before the last"
        )
    return -run_number - 1


def report(
    app: App, entry: dict[str, Any], processes: list[dict[str, Any]], lines: int, index: int = 0
) -> list[str]:
    """The text about one process; also used by `up` when something fails."""
    terminal = app.terminal
    style = WhyStyle(terminal.paint, min(terminal.width(), 160), lines, os.path.expanduser("~"), index)
    return why_report(entry, hints_for(entry, facts_for(entry, processes, app), index), style)


def facts_for(entry: dict[str, Any], processes: list[dict[str, Any]], app: App) -> Facts:
    exits = entry.get("exits") or []
    if not exits or not is_crash(exits[0]):
        return Facts()
    own = next((item for item in processes if item["name"] == entry["name"]), {})
    text = " ".join(exits[0].get("lines") or [])
    owners = {}
    if "ddress already in use" in text or "EADDRINUSE" in text:
        for number in dict.fromkeys([*(own.get("ports") or {}).values(), *mentioned_ports(entry)]):
            owner = port_owner(number)
            if owner:
                owners[number] = owner
    services = {
        number: (item["name"], item["state"])
        for item in processes
        if item["name"] != entry["name"]
        for number in (item.get("ports") or {}).values()
    }
    beside = program_beside_python(entry) if exits[0].get("error") else ""
    kills = oom_kills() if exits[0].get("signal") == "SIGKILL" else None
    environ = environment(entry["name"], app) if "No module named" in text else {}
    interpreter = shutil.which((entry.get("argv") or [""])[0], path=environ.get("PATH")) or ""
    return Facts(owners, services, environ.get("VIRTUAL_ENV") or "", interpreter, kills, beside)


def environment(name: str, app: App) -> Mapping[str, str | None]:
    """What the process was started with; where no cluster runs any more, what this command has."""
    cluster = running_cluster(app)
    spec = next((item for item in cluster.processes if item.name == name), None) if cluster else None
    return {**cluster.env, **spec.env} if cluster and spec else app.environ


def program_beside_python(entry: dict[str, Any]) -> str:
    """The missing program, where it is installed in novad's own environment and only PATH does not say so."""
    name = (entry.get("argv") or [""])[0]
    candidate = Path(sys.executable).parent / name
    return str(candidate) if name and "/" not in name and os.access(candidate, os.X_OK) else ""


def tell_failures(app: App, link: Link, names: list[str], lines: int = 10) -> None:
    """The why text of each of `names`, to stderr."""
    processes = link.request("status", names=[], usage=False)["processes"]
    for entry in link.request("why", names=names)["processes"]:
        app.terminal.err("\n" + "\n".join(report(app, entry, processes, lines)))
