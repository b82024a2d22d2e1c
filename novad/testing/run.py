"""`novad run -- CMD`: a cluster of its own, a command with its addresses, and nothing left afterwards.

The exit code never lies: the command's own; 125 when the cluster did not come up; 124 when the time ran out; 1
when the command succeeded and a service crashed meanwhile. An end by SIGKILL, of this process or of the daemon or
of both, is covered by the guardian (`novad.client.guardian`).
"""

from __future__ import annotations

import os
import random
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
from novad.client.journal import last_run
from novad.client.link import Unanswered
from novad.client.render.paint import visible_length
from novad.client.render.progress import about, summary
from novad.client.render.words import duration, exit_words, shorten, whereabouts
from novad.client.starting import Outcome, Starting
from novad.client.startup import Startup, brought_up_to_date
from novad.client.verbs.why import report
from novad.core.errors import NotRunning, NovadError
from novad.core.place import Place
from novad.core.shell import joined
from novad.core.spec import Cluster
from novad.testing import leaks, ledger, reports, shuffle
from novad.testing.program import NOT_EXECUTABLE, unrunnable
from novad.testing.story import Crash, Story, place_of

FAILED, TIMED_OUT, NO_CLUSTER, INTERRUPTED = 1, 124, 125, 130
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
    fail_on_leak: bool
    report: str | None
    junit: str | None
    max_ready_regression: str | None
    shuffle: bool
    seed: int | None


def run(app: App, **given: Any) -> int:
    options = RunOptions(**given)
    if options.max_ready_regression:
        ledger.share(options.max_ready_regression)
    if (code := unrunnable(app, options.command[0])) is not None:
        return code
    return Run(app, options).execute()


class Run:
    """One run, from the compilation to the exit code."""

    def __init__(self, app: App, options: RunOptions) -> None:
        self.app, self.options = app, options
        self.token = f"run-{uuid.uuid4().hex}"
        self.deadline = Deadline(options.timeout)
        self.began_s = time.monotonic()
        self.seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
        self.order: list[str] = []
        self.child: subprocess.Popen[bytes] | None = None
        self.gate = leaks.LeakGate() if options.fail_on_leak else None
        self.environ = {**app.environ, **(self.gate.environment() if self.gate else {})}

    def execute(self) -> int:
        """The exit code. Raises `ConfigError` before anything was started."""
        try:
            project = self.app.place(missing_ok=False)
            owned.remove_old(project)
            began_at = time.time()
            self.owned = owned.start(project, owned.fresh_namespace(), self._compile, (self.token,))
            self.story = Story(self.owned.cluster, self.options.command, began_at)
            self.story.are_crashes_forgiven = not self.options.fail_on_crash
            return self._live()
        finally:
            if self.gate:
                self.gate.close()

    def _live(self) -> int:
        story = self.story
        story.verdict = "interrupted"
        try:
            code = self._come_up()
            story.code = self._run_command() if code is None else code
            self._judge()
            self._judge_start()
        except NotRunning:
            story.code, story.verdict = NO_CLUSTER, "the daemon of this run died"
            self.app.terminal.err(f"error: {story.verdict}; everything is ended")
        except Unanswered as silence:
            # On a loaded machine; what the command said stands all the same, but a success is not proven.
            story.code, story.verdict = story.code or NO_CLUSTER, str(silence)
            self.app.terminal.err(f"error: {silence}; everything is ended")
        except SystemExit as ended:
            story.code = int(ended.code or 0)
            self.app.terminal.err("error: interrupted")
            raise
        finally:
            self._finish()
        return story.code

    def _compile(self, place: Place) -> Cluster:
        cluster = self.app.compiler.compile(
            place, profile=self.app.profile, overrides={}, taken_ports={}, scale={}, environ=self.environ,
            is_isolated=True,
        )  # fmt: skip
        if self.options.shuffle:
            cluster, self.order = shuffle.shuffled(cluster, self.seed)
            self.app.terminal.note(f"seed {self.seed}: {' → '.join(self.order)}")
        return cluster

    def _hint_at_order(self, names: list[str]) -> None:
        for name in names if self.order else []:
            self.app.terminal.err(f"hint: {shuffle.told(self.order, name, self.seed)}")

    def _seconds(self) -> float:
        return time.monotonic() - self.began_s

    # -- the cluster comes up

    def _come_up(self) -> int | None:
        """None when everything is ready, else the exit code, with the reason told."""
        cluster, link, terminal = self.owned.cluster, self.owned.link, self.app.terminal
        logs = os.path.relpath(self.owned.place.log_dir, self.owned.place.dir)
        count, paint = len(cluster.processes), terminal.err_paint
        terminal.note(whereabouts(self.app.config_name(), logs) + about(cluster.project, count, paint))
        picture = link.request("subscribe", states=True, lines=None)["processes"]
        reply = link.request("up", 60.0, cluster=link.request("spec")["cluster"], names=list(self.options.names))
        after = {item.name: tuple(needed.name for needed in item.after) for item in cluster.processes}
        startup = Startup(tuple(reply["names"]), after, self.began_s)
        now = brought_up_to_date(picture, link.queued_events())
        rows = [now[name] for name in startup.names]
        outcome = Starting(self.app, link, startup, rows, self.deadline, attaches=False).run_alone()
        if outcome is Outcome.INTERRUPTED:
            return INTERRUPTED
        if outcome is Outcome.SETTLED and startup.is_good:
            self.story.rows = self.owned.processes()
            first, *below = summary(startup, time.monotonic(), paint, terminal.width())
            command, width = f"→ {joined(self.options.command)}", terminal.width()
            if visible_length(first) + 1 + len(command) <= width:
                lines = [f"{first} {command}", *below]
            else:
                lines = [first, *below, shorten(command, width)]
            terminal.note("\n".join(lines))
            return None
        unready = [row.name for row in (*startup.failed(), *startup.unsettled())]
        return self._not_up(unready or list(startup.names), outcome is Outcome.TIMED_OUT)

    def _not_up(self, names: list[str], timed_out: bool) -> int:
        self.story.rows = self.owned.processes()
        for entry in self.owned.ask("why", names=names)["processes"]:
            text = "\n".join(report(self.app, entry, self.story.rows, CRASH_LINES))
            self.story.unready[entry["name"]] = text
            self.app.terminal.err(f"\n{text}")
            self.story.start_crashes += [
                self._crash(entry, item) for item in entry["exits"][:1] if owned.is_unasked(item)
            ]
        self.story.verdict = f"the cluster did not come up{' in time' if timed_out else ''}"
        self.app.terminal.err(f"error: {self.story.verdict}")
        self._hint_at_order([crash.name for crash in self.story.start_crashes])
        return TIMED_OUT if timed_out else NO_CLUSTER

    # -- the command

    def _run_command(self) -> int:
        environ = {**self.environ, **self.owned.environment()}
        outer = self.app.environ.get("NOVAD_RUN")
        environ["NOVAD_RUN"] = f"{outer}:{self.token}" if outer else self.token
        with Interrupts() as interrupts:
            self.story.command_at = time.time()
            try:
                self.child = subprocess.Popen(self.options.command, env=environ)
            except OSError as error:
                self.story.verdict = f"{self.options.command[0]}: {error.strerror}"
                self.app.terminal.err(f"error: {self.story.verdict}")
                return NOT_EXECUTABLE
            pidfd = os.pidfd_open(self.child.pid)
            try:
                return self._attend(self.child, pidfd, interrupts)
            finally:
                os.close(pidfd)

    def _attend(self, child: subprocess.Popen[bytes], pidfd: int, interrupts: Interrupts) -> int:
        """Wait for the command, and tell of crashes as they happen."""
        while True:
            ready = self.owned.link.wait([pidfd, interrupts.fileno()], self.deadline.left_s())
            if not ready:
                self.story.verdict = f"time was up after {duration(self._seconds())}"
                self.app.terminal.err(f"error: {self.story.verdict}")
                return TIMED_OUT
            if self.owned.link in ready:
                self._hear()
            if pidfd in ready:
                code = child.wait()
                self.story.command_code = code if code >= 0 else 128 - code
                self.story.verdict = f"exit {self.story.command_code}" if code else "passed"
                return self.story.command_code
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
                word = "crashed" if event["state"] == "backoff" else "failed"
                self.app.terminal.note(f"{self._seconds():04.1f} {event['name']}  {word}  {how}")
        if self.owned.link.ended:
            raise NotRunning("the daemon died")

    def _end_command(self) -> None:
        """The command and all that it started; politely first. What it left when it ended is a leak."""
        child = self.child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(COMMAND_GRACE_S)
            except subprocess.TimeoutExpired:
                pass
        elif self.gate:
            specs = self.owned.cluster.processes
            owners = {port.number: spec.name for spec in specs for port in spec.ports.values()}
            self.story.leaks += leaks.processes(self.token, owners)
        owned.end_marked(self.token)
        if child is not None:
            child.wait()

    # -- the end

    def _judge(self) -> None:
        """A success is none where a service crashed and the command did not notice."""
        story = self.story
        story.rows = self.owned.processes()
        for entry, item in self.owned.crashes() if self.child is not None else []:
            story.crashes.append(self._crash(entry, item))
        for name in story.crashed():
            crash = story.last_crash(name)
            assert crash is not None
            self.app.terminal.err(f"\n{crash.why}")
        if not story.crashes:
            return
        word = "warning" if story.are_crashes_forgiven else "error"
        self.app.terminal.err(f"{word}: crashed, and nobody asked for it: {', '.join(story.crashed())}")
        self._hint_at_order([crash.name for crash in story.crashes if not crash.was_ready])
        if story.code == 0 and self.options.fail_on_crash:
            story.code, story.verdict = FAILED, f"{', '.join(story.crashed())} crashed"

    def _judge_start(self) -> None:
        """Hold the times to ready against the ledger, and write them into it; only where that was asked for."""
        story, asked, folder = self.story, self.options.max_ready_regression, f"{self.owned.place.dir}/.novad"
        if not asked or story.command_at is None:
            return
        ready_s = {row["name"]: row["ready_in_s"] for row in story.rows if row["ready_in_s"] is not None}
        commit = ledger.commit_of(self.owned.place.dir)
        now, past = ledger.Entry(commit, story.began_at, story.cluster.profile, ready_s), ledger.read(folder)
        ledger.add(folder, past, now)
        found = ledger.regressions(past, now, ledger.share(asked))
        story.slower = {item.name: str(item) for item in found}
        for text in story.slower.values():
            self.app.terminal.err(f"error: slower start: {text}")
        if story.slower and story.code == 0:
            story.code, story.verdict = FAILED, f"slower start: {'; '.join(story.slower.values())}"

    def _crash(self, entry: dict[str, Any], item: dict[str, Any]) -> Crash:
        why = "\n".join(report(self.app, entry, self.story.rows, CRASH_LINES))
        how = item["error"] or exit_words(item["exit_code"], item["signal"])
        where = place_of(item["lines"], self.story.cluster.dir)
        lines = tuple(item["lines"])
        return Crash(entry["name"], how, item["at"], item["lived_s"], item["was_ready"], lines, why, where)

    def _finish(self) -> None:
        """Stop, look for leaks, write the reports; in every case."""
        story, place = self.story, self.owned.place
        self._end_command()
        if self.options.keep and not self.owned.link.ended:
            self._keep()
        else:
            self._stop()
        if self.gate and not self.options.keep:
            self._judge_leaks(self.gate)
        story.ended_at = time.time()
        story.changes = last_run(place.journal, ended=True)
        try:
            reports.write(story, dict(self.app.environ), self.options.report, self.options.junit)
        except OSError as error:
            self.app.terminal.err(f"error: cannot write the report: {error.filename}: {error.strerror}")
            story.code = story.code or FAILED
        if story.code == 0 and not self.options.keep:
            owned.remove_files(place)
        elif not self.options.keep:
            self.app.terminal.note(f"the logs stay in {os.path.relpath(place.log_dir)}")

    def _stop(self) -> None:
        began_s = time.monotonic()
        self.story.survivors = self.owned.stop(kill=self.story.code == TIMED_OUT)
        if self.owned.complaint:
            self.app.terminal.err(f"error: {self.owned.complaint}")
        for text in self.story.survivors:
            self.app.terminal.err(f"error: it did not die: {text}")
        self.story.code = self.story.code or (FAILED if self.story.survivors else 0)
        self.app.terminal.note(f"stopped in {duration(time.monotonic() - began_s)}")

    def _judge_leaks(self, gate: leaks.LeakGate) -> None:
        self.story.leaks += gate.files()
        for text in self.story.leaks:
            self.app.terminal.err(f"error: left behind: {text}")
        if self.story.leaks and self.story.code == 0:
            self.story.code, self.story.verdict = FAILED, f"left behind: {', '.join(self.story.leaks)}"

    def _keep(self) -> None:
        try:
            self.owned.release()
        except NovadError:
            self.owned.stop()
            return
        command = f"novad -f {self.owned.place.config} --namespace {self.owned.place.namespace}"
        self.app.terminal.note(f"the cluster runs on: {command} status")
        self.app.terminal.note(f"and is stopped by:   {command} down")
