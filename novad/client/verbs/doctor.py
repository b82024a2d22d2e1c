"""`novad check --system` (`doctor`): what on this machine keeps a cluster from running well.

Each line is a fact with ✔, or ✖ with one command that helps. Exit 1 where something is wrong.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from novad import __version__
from novad.client.app import App
from novad.client.launch import SOCKET_MAX_BYTES
from novad.client.machine import port_owner
from novad.client.render.words import plural
from novad.core.errors import ConfigError, NotRunning, NovadError

FILES_MIN = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` None is a fact that is neither good nor bad."""

    name: str
    ok: bool
    text: str
    hint: str = ""


def run(app: App) -> int:
    findings = list(examine(app))
    if app.options.json:
        rows = [
            {"name": item.name, "ok": item.ok, "text": item.text, "hint": item.hint or None} for item in findings
        ]
        app.print_json({"findings": rows})
    else:
        paint = app.terminal.paint
        for item in findings:
            shape = paint("✔", "green") if item.ok else paint("✖", "red")
            app.terminal.out(f"{shape} {item.name.ljust(11)} {item.text}")
            if item.hint and not item.ok:
                app.terminal.out(f"  {''.ljust(11)} {paint(item.hint, 'bold')}")
    return 0 if all(item.ok for item in findings) else 1


def examine(app: App) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    virtual = f", environment {sys.prefix}" if sys.prefix != sys.base_prefix else ", no virtual environment"
    yield Finding("novad", True, f"{__version__}, Python {version}{virtual}")
    yield other_nova()
    yield kernel()
    yield open_files()
    yield clock()
    try:
        yield from cluster(app)
    except ConfigError as error:
        first = error.message.splitlines()[0]
        yield Finding("nova.toml", False, first, error.hint or f"{app.command_name()} check")


def other_nova() -> Finding:
    """OpenStack's own `nova` and this one have the same import name; one environment holds one of them."""
    try:
        version = importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return Finding("nova", True, "OpenStack's nova is not in this environment")
    return Finding(
        "nova", False, f"OpenStack's nova {version} is installed here and hides ours", "pip uninstall nova"
    )


def kernel() -> Finding:
    has_pidfd = hasattr(os, "pidfd_open")
    text = f"{os.uname().sysname} {os.uname().release}"
    return Finding("kernel", True, text + ("" if has_pidfd else ", without pidfd: a death is noticed by SIGCHLD"))


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        return Finding("open files", True, f"{soft} (at most {hard})")
    return Finding(
        "open files", False, f"{soft} are few for a cluster", f"ulimit -n {max(FILES_MIN, min(hard, 65536))}"
    )


def clock() -> Finding:
    """Logs are merged by their stamps, which begin with a sane clock."""
    newest = Path(__file__).stat().st_mtime
    import time

    if time.time() + 86400 >= newest:
        return Finding("clock", True, time.strftime("%Y-%m-%d %H:%M:%S %z"))
    return Finding("clock", False, "the clock is behind the installation by more than a day", "date")


def cluster(app: App) -> Iterator[Finding]:
    """The project: its file, its socket, its ports."""
    place = app.place(missing_ok=False)
    length = len(os.fsencode(place.socket))
    yield Finding("socket", length <= SOCKET_MAX_BYTES, f"{place.socket} ({length} bytes)", "export TMPDIR=/tmp")
    taken: dict[str, int] = {}
    is_running = False
    try:
        with app.link() as link:
            about = link.request("ping")
            is_running = True
            yield Finding("daemon", True, f"pid {about['pid']}, version {about['version']}")
            if about["version"] != __version__:
                yield Finding(
                    "version", False, f"the daemon is {about['version']}, this is {__version__}", "novad down"
                )
    except NotRunning:
        is_stale = Path(place.socket).exists()
        text = "not running; a stale socket is there, the next up replaces it" if is_stale else "not running"
        yield Finding("daemon", True, text)
    except NovadError as error:
        yield Finding("daemon", False, error.message, error.hint)
    compiled = app.compiler.compile(
        place, profile=app.profile, overrides={}, taken_ports=taken, scale={}, environ=app.environ
    )
    yield Finding("nova.toml", True, f"{plural(len(compiled.processes), 'process')}, no faults")
    if is_running:
        return
    for process in compiled.processes:
        for name, port in process.ports.items():
            if port.fixed and is_busy(port.number):
                owner = port_owner(port.number) or "somebody"
                yield Finding(
                    "port",
                    False,
                    f"{process.name}.{name} wants {port.number}, held by {owner}",
                    'stop it, or use "auto"',
                )


def is_busy(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return True
    return False
