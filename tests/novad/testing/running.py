"""A project for runs: services and commands that carry a token, and an oracle that looks for it in /proc."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

from tests.system import oracle

DEADLINE_S = 60.0
FAST = '[defaults]\nready_after = "50ms"\nbackoff = { min = "50ms", max = "100ms" }\nstop = { timeout = "2s" }\n'


class Site:
    """`token` is in the environment of everything that is started from here."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder, self.runtime = folder, runtime
        self.token = f"site={folder}"
        root = str(Path(__file__).parents[3])
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environ = {
            **kept,
            "PYTHONPATH": root,
            "XDG_RUNTIME_DIR": str(runtime),
            "NO_COLOR": "1",
            "SITE": self.token,
        }

    def write(self, text: str, name: str = "nova.toml", fast: bool = True) -> None:
        (self.folder / name).write_text((FAST if fast and name == "nova.toml" else "") + text)

    def start(self, *argv: str, **more: str) -> subprocess.Popen[str]:
        """A process in a session of its own, its output in pipes."""
        return subprocess.Popen(
            argv, cwd=self.folder, env={**self.environ, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def novad(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "novad", *words, **more)

    def run(self, *words: str, **more: str) -> tuple[int, str, str]:
        """`novad run` to its end: code, stdout, stderr."""
        return finished(self.novad("run", *words, **more))

    def pytest(self, *words: str, **more: str) -> tuple[int, str, str]:
        return finished(self.start(*pytest_argv(*words), **more))

    def live(self) -> list[oracle.Seen]:
        """Every living process of this site."""
        return [seen for seen in oracle.processes(self.token) if seen.pid != os.getpid()]

    def daemons(self) -> list[int]:
        return [seen.pid for seen in oracle.processes(str(self.runtime)) if " novad.daemon " in seen.command]

    def left_after(self, seconds: float) -> list[oracle.Seen]:
        """What still lives `seconds` from now; returns as soon as nothing does."""
        until_s = time.monotonic() + seconds
        while (left := self.live() + guardians(self)) and time.monotonic() < until_s:
            first = os.pidfd_open(left[0].pid) if oracle.look(left[0].pid) else None
            if first is not None:
                select.select([first], [], [], max(0.0, until_s - time.monotonic()))
                os.close(first)
        return left

    def end(self) -> None:
        for _ in range(20):
            if not (left := self.live() + guardians(self)):
                break
            for seen in left:
                try:
                    os.kill(seen.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def guardians(site: Site) -> list[oracle.Seen]:
    return [seen for seen in oracle.processes(str(site.runtime)) if seen.pid != os.getpid()]


def finished(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=DEADLINE_S)
    return child.returncode, out, err


def pytest_argv(*words: str) -> list[str]:
    installed = any(found.name == "novad" for found in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "novad.testing.plugin"]
    quiet = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return [sys.executable, "-m", "pytest", *quiet, *plugin, *words]
