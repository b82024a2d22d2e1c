"""A project in a temporary directory, driven through the installed command and a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect

DEADLINE_S = 20.0
QUICK = '[defaults]\nbackoff = { min = "50ms", max = "100ms" }\nstop = { timeout = "2s" }\n'


class Project:
    """`novad` runs a command line in it; `terminal` does on a pty."""

    def __init__(self, directory: Path, runtime: Path) -> None:
        self.directory = directory
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("NOVAD_") and name not in ("NO_COLOR", "FORCE_COLOR")
        }
        self.environ |= {"XDG_RUNTIME_DIR": str(runtime), "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._terminals: list[pexpect.spawn[str]] = []

    def write(self, text: str, name: str = "nova.toml") -> None:
        (self.directory / name).write_text(QUICK + text if name == "nova.toml" else text)

    def novad(
        self, *words: str, stdin: str | None = None, timeout_s: float = DEADLINE_S * 2
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "novad", *words],
            cwd=self.directory, env=self.environ, input=stdin, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "novad", *words], cwd=self.directory, env=self.environ,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def terminal(self, *words: str, columns: int = 100, lines: int = 30) -> pexpect.spawn[str]:
        child = pexpect.spawn(
            sys.executable, ["-m", "novad", *words], cwd=str(self.directory), env=self.environ,
            dimensions=(lines, columns), encoding="utf-8", timeout=DEADLINE_S,
        )  # fmt: skip
        self._terminals.append(child)
        return child

    def processes(self) -> dict[str, dict[str, Any]]:
        done = self.novad("status", "--json")
        assert done.returncode == 0, done.stderr
        return {item["name"]: item for item in json.loads(done.stdout)["processes"]}

    def is_up(self) -> bool:
        return self.novad("status").returncode == 0

    def until(self, holds: Callable[[], Any]) -> Any:
        """The first true value of `holds()`; fails after the deadline."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            value = holds()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError("it did not happen in time")

    def close(self) -> None:
        for child in self._terminals:
            child.close(force=True)
        done = self.novad("down", "--kill")
        assert done.returncode == 0, done.stderr


@contextmanager
def new_project(directory: Path) -> Iterator[Project]:
    runtime = Path(tempfile.mkdtemp(prefix="nv", dir="/tmp"))
    made = Project(directory, runtime)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(runtime)


def marked_processes(directory: Path) -> list[int]:
    """Pids of processes that a daemon of this directory started, from their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            if b"NOVAD_ID=" in environ and os.readlink(entry / "cwd") == str(directory):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
