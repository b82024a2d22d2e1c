"""What the tests of the compiler share: one call with everything that most tests do not care about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novad.config.load import Compiled, compile_cluster, compile_with_origins
from novad.config.report import ConfigFaults
from novad.config.request import Request
from novad.core.spec import Cluster, ProcessSpec

SHELL = {"HOME": "/home/dev", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def write(folder: Path, text: str, **files: str) -> str:
    """nova.toml, and further files by name (`__` stands for a dot), in a folder; the path of nova.toml."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    config = folder / "nova.toml"
    config.write_text(text)
    return str(config.resolve())


def arguments(environ: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "namespace": "default",
        "profile": None,
        "overrides": {},
        "environ": SHELL if environ is None else environ,
        "run_dir": "/run/novad/abc",
        "state_dir": "/state",
        "log_dir": "/state/logs",
        "taken_ports": {},
        "scale": {},
        "python": "/venv/bin/python",
    }
    return values | changes


def compiled(folder: Path, text: str, files: Mapping[str, str] | None = None, **changes: Any) -> Cluster:
    return compile_cluster(write(folder, text, **(files or {})), **arguments(**changes))


def traced(folder: Path, text: str, files: Mapping[str, str] | None = None, **changes: Any) -> Compiled:
    return compile_with_origins(Request(write(folder, text, **(files or {})), **arguments(**changes)))


def process(cluster: Cluster, name: str) -> ProcessSpec:
    (found,) = [process for process in cluster.processes if process.name == name]
    return found


def refusal(config: str, **changes: Any) -> ConfigFaults | None:
    """The report on a nova.toml; None where it compiles."""
    try:
        compile_cluster(config, **arguments(**changes))
    except ConfigFaults as error:
        return error
    return None


def faults(folder: Path, text: str, files: Mapping[str, str] | None = None, **changes: Any) -> list[str]:
    """The messages of all faults; none where the file compiles."""
    report = refusal(write(folder, text, **(files or {})), **changes)
    return [fault.message for fault in report.faults] if report else []
