"""The scoreboard: experiments by number, each in a short and a full form, each with controls that must fail.

An experiment is a function of a `Site` and of its sizes. It returns its figures as one line, raises `Violation`
where a promise is broken, and `Skip` where this machine cannot produce the fault. A control is the same
experiment with something broken on purpose: an oracle that lets it pass is worth nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.site import Site


class Violation(AssertionError):
    """A promise is broken: what was promised, what was seen."""


class Skip(Exception):
    """This machine cannot produce the fault: why."""


Run = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Experiment:
    """`short` and `full` are the keyword arguments of `run` for seconds and for the stated figures.

    `controls` maps what is broken on purpose to the arguments that break it, on top of `short`.
    """

    id: str
    title: str
    run: Run
    short: Mapping[str, Any]
    full: Mapping[str, Any]
    controls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


EXPERIMENTS: dict[str, Experiment] = {}
INSIDE: dict[str, Run] = {}


def experiment(
    id: str,
    title: str,
    *,
    short: Mapping[str, Any],
    full: Mapping[str, Any],
    controls: Mapping[str, Mapping[str, Any]],
    isolated: bool = False,
) -> Callable[[Run], Run]:
    """Enter a function into the table. `isolated`: it runs in process and mount namespaces of its own, as root
    of them, so that it may fill disks and reuse pids; its sizes must be JSON then."""

    def enter(run: Run) -> Run:
        assert id not in EXPERIMENTS, f"{id} twice"
        outer = functools.partial(_isolate, id) if isolated else run
        EXPERIMENTS[id] = Experiment(id, title, outer, short, full, controls)
        INSIDE[id] = run
        return run

    return enter


def _isolate(id: str, site: Site, **sizes: Any) -> str:
    """Run an experiment in namespaces of its own; everything in them dies with it."""
    unshare = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--mount"]
    if os.getuid() != 0:
        unshare.append("--map-root-user")
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        raise Skip("namespaces cannot be made here (unshare)")
    done = subprocess.run(
        [*unshare, sys.executable, "-m", "tests.system", "--inside", json.dumps(sizes), id],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    try:
        verdict, text = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(f"{id} inside: exit {done.returncode}: {done.stdout}{done.stderr}") from None
    if verdict == "pass":
        return str(text)
    raise {"skip": Skip, "fail": Violation}.get(verdict, RuntimeError)(text)


def load() -> dict[str, Experiment]:
    """All experiments, in the order of their numbers."""
    package = importlib.import_module("tests.system.experiments")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"tests.system.experiments.{module.name}")
    return dict(sorted(EXPERIMENTS.items()))


def perform(run: Run, sizes: Mapping[str, Any]) -> str:
    """Run once in a site of its own; what it left behind is ended, whatever happened."""
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="novad-board-", ignore_cleanup_errors=True))
        )
        site = Site(folder)
        stack.callback(site.end)
        figures = run(site, **sizes)
        require("Traceback" not in site.complaints(), f"no traceback: {site.complaints()[-2000:]}")
        return figures


def require(holds: bool, promise: str) -> None:
    """Raises `Violation` where `holds` is false."""
    if not holds:
        raise Violation(promise)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread_ms(values_s: list[float]) -> str:
    """`p50 2.1 ms p99 9.8 ms` of durations in seconds."""
    return f"p50 {quantile(values_s, 0.5) * 1000:.1f} ms p99 {quantile(values_s, 0.99) * 1000:.1f} ms"


def until(condition: Callable[[], Any], seconds: float, promise: str) -> Any:
    """What `condition` returns once it is true. Raises `Violation` after `seconds`.

    For what no event announces: /proc and files. Looks every 2 ms.
    """
    deadline_s = time.monotonic() + seconds
    while not (value := condition()):
        require(time.monotonic() < deadline_s, f"{promise} (waited {seconds:g} s)")
        time.sleep(0.002)
    return value
