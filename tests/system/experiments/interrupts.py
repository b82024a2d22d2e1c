"""Ctrl-C, once and again, the terminal's end and the shell's, while a cluster starts, runs and stops."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import sys
from collections import Counter

import pexpect

from tests.system.board import experiment, require, until
from tests.system.site import Site

# Each says itself which signals it gets. `deaf` stays for all of them.
LISTENER = """
trap 'echo "$VICTIM.HUP $$" >> "$BELL"' HUP
trap 'echo "$VICTIM.INT $$" >> "$BELL"' INT
trap 'echo "$VICTIM.TERM $$" >> "$BELL"; %s' TERM
echo "$VICTIM $$" >> "$BELL"
echo it is ready
while :; do sleep 600 & wait; done
"""
ENDS = {"calm": "exit 0", "slow": "sleep 0.3; exit 0", "deaf": "true"}
COMMAND = (
    """trap 'echo "command.INT $$" >> "$BELL"; exit 0' INT; echo "command $$" >> "$BELL"; sleep 600 & wait"""
)
STOP_S = 3.0
ENDED_S = 15.0
PHASES = ("starting", "steady", "stopping")
ACTS = ("one", "two", "three", "hang-up", "shell killed")
KINDS = ("up", "up -d", "run")


def _config(site: Site, names: tuple[str, ...], phase: str) -> None:
    ready = "it is never said" if phase == "starting" else "it is ready"
    tables = []
    for name in names:
        script = LISTENER % ENDS[name]
        tables.append(
            f"[services.{name}]\ncommand = ['/bin/sh', '-c', '''{script}''']\nenv = {{ VICTIM = '{name}' }}\n"
            f"ready = {{ log = '{ready}' }}\nstop = {{ timeout = '{STOP_S}s' }}\nrestart = 'no'\n"
        )
    site.write_config("".join(tables))


class Terminal:
    """A shell on a pseudo-terminal, in which the command was typed."""

    def __init__(self, site: Site, kind: str) -> None:
        words = ["run", "--", "/bin/sh", "-c", COMMAND] if kind == "run" else kind.split()
        typed = shlex.join([sys.executable, "-m", "novad", "-f", "nova.toml", *words])
        env = {
            **site.surroundings(),
            "TERM": "xterm",
            "BELL": f"{site.folder}/bell",
            "PS1": "$ ",
        }
        self.shell = pexpect.spawn(
            "/bin/sh", ["-i"], cwd=str(site.folder), env=env, encoding="utf-8", codec_errors="replace",  # type: ignore[arg-type]
            timeout=ENDED_S, dimensions=(30, 200),
        )  # fmt: skip
        # A Ctrl-C that comes when the command has ended is the shell's, which would forget the rest of the line.
        self.shell.sendline("trap : INT")
        # `novad` is the group in the foreground, as of a job of an interactive shell.
        self.shell.sendline(f"{typed}; echo ended with $?.")

    def ended_with(self) -> int:
        """The command's exit code. Raises `Violation` where it does not end."""
        try:
            self.shell.expect(r"ended with (\d+)\.")
        except (pexpect.TIMEOUT, pexpect.EOF):
            said = self.shell.before
            require(False, f"the command ends: {said[-400:] if isinstance(said, str) else said!r}")
        assert isinstance(self.shell.match, object)
        return int(self.shell.match.group(1))  # type: ignore[union-attr]

    def said(self) -> str:
        """The end of what it shows, for a report."""
        return f"{self.shell.before or ''}{self.shell.after or ''}"[-1500:]

    def hang_up(self) -> None:
        """The terminal is gone: the kernel tells its foreground."""
        self.shell.ptyproc.fileobj.close()
        self.shell.ptyproc.closed = self.shell.closed = True

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.shell.pid, signal.SIGKILL)
        if not self.shell.closed:
            self.hang_up()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.shell.pid, 0)


def _act(site: Site, terminal: Terminal, act: str, kind: str) -> None:
    """Presses, each after the effect of the one before; or the end of the terminal or of the shell."""
    shell = terminal.shell
    if act == "hang-up":
        terminal.hang_up()
    elif act == "shell killed":
        os.kill(shell.pid, signal.SIGKILL)
    else:
        said = {"one": [""], "two": ["stopping", ""], "three": ["stopping", "killing", ""]}[act]
        for answer in said:
            shell.sendintr()
            if answer and kind == "up":
                shell.expect(answer)


def _begin(site: Site, kind: str, phase: str, names: tuple[str, ...]) -> Terminal:
    """The command typed, and its cluster in that phase; what rang until then is heard."""
    _config(site, names, phase)
    terminal = Terminal(site, kind)
    awaited = {*names, "command"} if kind == "run" and phase != "starting" else set(names)
    started = site.bell.await_all(awaited, 30)
    require(started.keys() >= awaited, f"{kind}: all start: {sorted(started)}")
    if phase == "starting":
        if kind != "run":
            # What it shows of them it shows once it listens to Ctrl-C.
            terminal.shell.expect("calm")
        return terminal
    if kind == "up":
        terminal.shell.expect("ready")
        terminal.shell.expect("Ctrl-C stops")
    elif kind == "up -d":
        require(terminal.ended_with() == 0, "up -d says that all is ready")
    if phase == "stopping":
        down = site.novad("down") if kind == "up -d" else None
        if down is None:
            terminal.shell.sendintr()
        else:
            site.others.append(down)  # type: ignore[arg-type]
    return terminal


def _check(site: Site, kind: str, phase: str, act: str, heard: Counter[str], names: tuple[str, ...]) -> None:
    case = f"{kind}, {phase}, {act}"
    for name in names:
        strays = {what: count for what, count in heard.items() if what in (f"{name}.INT", f"{name}.HUP")}
        require(not strays, f"{case}: nothing of the terminal reaches a service: {strays}")
        require(heard[f"{name}.TERM"] <= 1, f"{case}: {name} is told once: {heard[f'{name}.TERM']} times")
    if kind == "run" and phase == "steady" and act == "one":
        require(heard["command.INT"] == 1, f"{case}: the command gets one INT: {heard['command.INT']}")


def _once(site: Site, kind: str, phase: str, act: str, names: tuple[str, ...], leak: bool = False) -> None:
    case = f"{kind}, {phase}, {act}"
    terminal = _begin(site, kind, phase, names)
    try:
        _act(site, terminal, act, kind if phase != "stopping" else "")
        if act in ("one", "two", "three") and (kind != "up -d" or phase == "starting"):
            code = terminal.ended_with()
            wanted = (0, 130) if kind == "run" else (130,)
            require(code in wanted, f"{case}: exit {wanted}: {code}; {terminal.said()}")
        if kind == "up -d" and phase != "stopping":
            site.bell.hear_for(0.0)
            require(len(site.daemons()) == 1, f"{case}: the daemon stays")
            require(sorted(site.leaders()) == sorted(names), f"{case}: services stay: {sorted(site.leaders())}")
            site.ask("down")
        until(lambda: not site.live() and not site.daemons(), ENDED_S, f"{case}: nothing is left")
        if leak:
            _leak(site)
        heard = Counter(ring.name for ring in site.bell.hear_for(0.02))
        _check(site, kind, phase, act, heard, names)
        if act == "one" or act in ("hang-up", "shell killed"):
            told = [name for name in names if heard[f"{name}.TERM"] != 1]
            require(not told, f"{case}: each is told once: not {told}, {dict(heard)}")
    finally:
        terminal.end()


@experiment(
    "R21",
    "Ctrl-C, hang-up and a killed shell, while a cluster starts, runs and stops",
    short={"every": 6},
    full={"every": 1},
    controls={"a Ctrl-C that reaches a service": {"every": 100, "leak": True}},
)
def interrupt(site: Site, every: int, leak: bool = False) -> str:
    """One Ctrl-C is one signal to each service, and never the terminal's; what is owned ends, a daemon stays."""
    cases = list(itertools.product(KINDS, PHASES, ACTS))[::every]
    for kind, phase, act in cases:
        names = ("calm", "slow", "deaf") if act in ("two", "three") else ("calm", "slow")
        _once(site, kind, phase, act, names, leak)
    return f"{len(cases)} cases: one TERM each, 0 INT, 0 HUP, 0 left"


def _leak(site: Site) -> None:
    """What a service would say that shares the terminal's group."""
    with (site.folder / "bell").open("w") as bell:
        bell.write("calm.INT 1\n")
