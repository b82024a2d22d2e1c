"""`novad run -- CMD`: a cluster of its own, a command with its addresses, and nothing left afterwards.

The exit code never lies: the command's own; 125 when the cluster did not come up; 124 when the time ran out; 1
when the command succeeded and a service crashed meanwhile. An end by SIGKILL, of this process or of the daemon or
of both, is covered by the guardian (`novad.client.guardian`).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

from novad.client import owned
from novad.client.app import App
from novad.client.deadline import Deadline
from novad.client.interrupts import Interrupts
from novad.client.render.progress import header, summary
from novad.client.render.words import duration, exit_words, plural
from novad.client.starting import Outcome, Starting
from novad.client.startup import Startup
from novad.client.verbs.up import brought_up_to_date
from novad.client.verbs.why import report, tell_failures
from novad.core.errors import NotRunning, NovadError
from novad.core.place import Place
from novad.core.spec import Cluster

FAILED, TIMED_OUT, NO_CLUSTER, NOT_EXECUTABLE, NOT_FOUND, INTERRUPTED = 1, 124, 125, 126, 127, 130
CRASH_LINES = 20
# A command that was told to end gets this long before its whole tree is killed.
COMMAND_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of `run`."""

    command: tuple[str, ...]
    names: tuple[str, ...]
    keep: bool
    timeout: float | None
    fail_on_crash: bool


def run(app: App, **given: Any) -> int:
    options = RunOptions(**given)
    if (code := unrunnable(app, options.command[0])) is not None:
        return code
    return Run(app, options).execute()


def unrunnable(app: App, program: str) -> int | None:
    """The exit code where the command cannot be run, found out before a cluster is started for it."""
    if shutil.which(program, path=app.environ.get("PATH")):
        return None
    exists = os.path.exists(program) and "/" in program
    app.terminal.err(
        f"error: {program}: {'not executable' if exists else 'no such command'}; nothing was started"
    )
    return NOT_EXECUTABLE if exists else NOT_FOUND


class Run:
    """One run, from the compilation to the exit code."""

    def __init__(self, app: App, options: RunOptions) -> None:
        self.app, self.options = app, options
        self.token = f"run-{uuid.uuid4().hex}"
        self.deadline = Deadline(options.timeout)
        self.began_s = time.monotonic()
        self.child: subprocess.Popen[bytes] | None = None

    def execute(self) -> int:
        """The exit code. Raises `ConfigError` before anything was started."""
        project = self.app.place(missing_ok=False)
        owned.remove_old(project)
        self.owned = owned.start(project, owned.fresh_namespace(), self._compile, (self.token,))
        code = FAILED
        try:
            code = self._judged(self._come_up() or self._run_command())
        except NotRunning:
            code = self._daemon_died()
        finally:
            code = self._finish(code)
        return code

    def _compile(self, place: Place) -> Cluster:
        return self.app.compiler.compile(
            place, profile=self.app.profile, overrides={}, taken_ports={}, scale={}, environ=self.app.environ,
            is_isolated=True,
        )  # fmt: skip

    # -- the cluster comes up

    def _come_up(self) -> int | None:
        """None when everything is ready, else the exit code, with the reason told."""
        cluster, link, terminal = self.owned.cluster, self.owned.link, self.app.terminal
        logs = os.path.relpath(self.owned.place.log_dir, self.owned.place.dir)
        terminal.note(
            header(cluster.project, len(cluster.processes), self.app.config_name(), logs, terminal.err_paint)
        )
        picture = link.request("subscribe", states=True, lines=None)["processes"]
        reply = link.request("up", 60.0, cluster=link.request("spec")["cluster"], names=list(self.options.names))
        after = {item.name: tuple(needed.name for needed in item.after) for item in cluster.processes}
        startup = Startup(tuple(reply["names"]), after, self.began_s)
        now = brought_up_to_date(picture, link.queued_events())
        rows = [now[name] for name in startup.names]
        outcome = Starting(self.app, link, startup, rows, self.deadline, attaches=False).run()
        if outcome is Outcome.INTERRUPTED:
            return INTERRUPTED
        if outcome is Outcome.SETTLED and startup.is_good:
            terminal.note(
                f"{summary(startup, time.monotonic(), terminal.err_paint)} → {' '.join(self.options.command)}"
            )
            return None
        unready = [row.name for row in (*startup.failed(), *startup.unsettled())]
        tell_failures(self.app, link, unready or list(startup.names), CRASH_LINES)
        terminal.err(f"error: the cluster did not come up{' in time' if outcome is Outcome.TIMED_OUT else ''}")
        return TIMED_OUT if outcome is Outcome.TIMED_OUT else NO_CLUSTER

    # -- the command

    def _run_command(self) -> int:
        environ = {**self.app.environ, **self.owned.environment()}
        outer = self.app.environ.get("NOVAD_RUN")
        environ["NOVAD_RUN"] = f"{outer}:{self.token}" if outer else self.token
        with Interrupts() as interrupts:
            try:
                self.child = subprocess.Popen(self.options.command, env=environ)
            except OSError as error:
                self.app.terminal.err(f"error: {self.options.command[0]}: {error.strerror}")
                return NOT_EXECUTABLE
            pidfd = os.pidfd_open(self.child.pid)
            try:
                return self._attend(self.child, pidfd, interrupts)
            finally:
                os.close(pidfd)

    def _attend(self, child: subprocess.Popen[bytes], pidfd: int, interrupts: Interrupts) -> int:
        """Wait for the command, and tell of crashes as they happen."""
        sources = [pidfd, interrupts.fileno(), self.owned.link.fileno()]
        while True:
            ready = select.select(sources, [], [], self.deadline.left_s())[0]
            if not ready:
                self.app.terminal.err(f"error: time is up after {duration(time.monotonic() - self.began_s)}")
                return TIMED_OUT
            if self.owned.link.fileno() in ready:
                self._hear()
            if pidfd in ready:
                code = child.wait()
                return code if code >= 0 else 128 - code
            if interrupts.fileno() in ready and interrupts.take() and self._interrupted(child, interrupts.count):
                return INTERRUPTED

    def _interrupted(self, child: subprocess.Popen[bytes], count: int) -> bool:
        """Ctrl-C reaches the command by itself on a terminal; it decides, until the user insists."""
        if count == 1 and not sys.stdin.isatty():
            child.send_signal(signal.SIGINT)
        if count == 1:
            self.app.terminal.note("interrupted; waiting for the command (Ctrl-C again ends it)")
        return count > 1

    def _hear(self) -> None:
        """Raises `NotRunning` when the daemon has died."""
        for event in self.owned.link.pending_events():
            if event.get("type") == "state" and event["state"] in ("backoff", "failed"):
                how = exit_words(event.get("exit_code"), event.get("signal")) or event.get("note") or ""
                at = time.monotonic() - self.began_s
                self.app.terminal.note(
                    f"{at:04.1f} {event['name']}  {'crashed' if event['state'] == 'backoff' else 'failed'}  {how}"
                )
        if self.owned.link.ended:
            raise NotRunning("the daemon died")

    def _end_command(self) -> None:
        """The command and all that it started; politely first."""
        child = self.child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(COMMAND_GRACE_S)
            except subprocess.TimeoutExpired:
                pass
        owned.end_marked(self.token)
        if child is not None:
            child.wait()

    # -- the end

    def _judged(self, code: int) -> int:
        """The code, turned to 1 where a service crashed and the command did not notice."""
        crashes = self.owned.crashes() if self.child is not None else []
        rows = self.owned.processes() if crashes else []
        for name in dict.fromkeys(entry["name"] for entry, _ in crashes):
            entry = next(entry for entry, _ in crashes if entry["name"] == name)
            self.app.terminal.err("\n" + "\n".join(report(self.app, entry, rows, CRASH_LINES)))
        if not crashes:
            return code
        names = ", ".join(dict.fromkeys(entry["name"] for entry, _ in crashes))
        self.app.terminal.err(f"error: {plural(len(crashes), 'crash')} that nobody asked for: {names}")
        return FAILED if code == 0 and self.options.fail_on_crash else code

    def _daemon_died(self) -> int:
        self.app.terminal.err("error: the daemon of this run died; everything is ended")
        return NO_CLUSTER if self.child is None or self.child.poll() is None else FAILED

    def _finish(self, code: int) -> int:
        self._end_command()
        if self.options.keep and not self.owned.link.ended:
            return self._keep(code)
        began_s = time.monotonic()
        survivors = self.owned.stop(kill=code == TIMED_OUT)
        for text in survivors:
            self.app.terminal.err(f"error: it did not die: {text}")
        self.app.terminal.note(f"stopped in {duration(time.monotonic() - began_s)}")
        if code == 0 and not survivors:
            owned.remove_files(self.owned.place)
        else:
            self.app.terminal.note(f"the logs stay in {os.path.relpath(self.owned.place.log_dir)}")
        return code or (FAILED if survivors else 0)

    def _keep(self, code: int) -> int:
        try:
            self.owned.release()
        except NovadError:
            self.owned.stop()
            return code
        command = f"novad -f {self.owned.place.config} --namespace {self.owned.place.namespace}"
        self.app.terminal.note(f"the cluster runs on: {command} status")
        self.app.terminal.note(f"and is stopped by:   {command} down")
        return code
