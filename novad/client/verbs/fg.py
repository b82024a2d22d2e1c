"""`novad fg SVC`: the supervised copy stops, the same command runs here, and supervision resumes afterwards.

The daemon says what to run and hands over the lock, the ports and the pipe of the log; the link that asked is the
hold, and closing it gives the process back.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from novad.client.app import App
from novad.client.debugger import under_pdb
from novad.client.job import CannotExecute, Command, Job, lent_terminal, own_terminal
from novad.client.link import Link
from novad.client.render.words import exit_words, signal_name
from novad.client.tee import Tee
from novad.core.errors import NotRunning, NovadError, UsageError

# Of the caller's terminal, not of the cluster: without them a debugger draws for another screen.
OF_TERMINAL = ("TERM", "COLORTERM", "TERM_PROGRAM", "LS_COLORS", "LANG", "LC_ALL", "LC_CTYPE")


def run(app: App, name: str, pdb: bool, log: bool, arguments: tuple[str, ...]) -> int:
    terminal_fd = own_terminal()
    place = os.ttyname(0).removeprefix("/dev/") if os.isatty(0) else f"pid {os.getpid()}"
    link = app.link()
    with link:
        state = the_one(link.request("status", names=[name], usage=False)["processes"])["state"]
        if pdb:
            # What cannot be debugged is found out before anything is stopped.
            check_debuggable(app, link, name)
        app.terminal.note(f"{name}: {'stopping the supervised copy' if state == 'ready' else state} ...")
        held = link.request("fg", None, names=[name], terminal=place, log=log)
        command = command_of(app, held, link.take_descriptors(), pdb, arguments, terminal_fd is not None)
        with lent_terminal(terminal_fd):
            status = Session(link, held, terminal_fd).run(command)
    app.terminal.note(farewell(app, held["name"], status, link))
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def the_one(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The only process that was named. Raises `UsageError`."""
    if len(rows) != 1:
        names = [row["name"] for row in rows]
        raise UsageError(f"fg takes one process, not {len(names)}: {', '.join(names)}", f"novad fg {names[0]}")
    return rows[0]


def check_debuggable(app: App, link: Link, name: str) -> None:
    entry = link.request("why", names=[name])["processes"][0]
    under_pdb(entry["argv"], entry["cwd"], app.environ)


def command_of(
    app: App, held: dict[str, Any], fds: list[int], pdb: bool, arguments: tuple[str, ...], has_terminal: bool
) -> tuple[Command, int | None]:
    """The command, and the pipe of the log where there is one."""
    lock, *rest = fds
    log = rest.pop() if held["log"] else None
    env = dict(held["env"])
    if has_terminal:
        env |= {key: app.environ[key] for key in OF_TERMINAL if key in app.environ}
    argv = under_pdb(held["argv"], held["cwd"], env) if pdb else list(held["argv"])
    listen = list(zip(held["listen"], rest, strict=True))
    command = Command([*argv, *arguments], held["cwd"], env, held["limits"], held["nice"], listen, keep=[lock])
    return command, log


class Session:
    """One command in the foreground, with the daemon told of its pid and its end."""

    def __init__(self, link: Link, held: dict[str, Any], terminal_fd: int | None) -> None:
        self._link, self._name, self._terminal_fd = link, held["name"], terminal_fd

    def run(self, given: tuple[Command, int | None]) -> int:
        """The wait status. Raises `CannotExecute`."""
        command, log = given
        tee = None if log is None else Tee(self._terminal_fd, log)
        if tee is not None:
            command = with_output(command, tee)
        job = Job(command, None if tee is not None else self._terminal_fd)
        if tee is not None:
            tee.close_child_end()
        for descriptor in (*command.keep, *(fd for _, fd in command.listen)):
            os.close(descriptor)
        try:
            self._link.request("spawned", name=self._name, pid=job.pid, log=tee is not None)
        except NovadError:
            job.abandon()
            raise
        try:
            job.go()
        except CannotExecute as error:
            self._tell(job.pid, error.exit_code << 8)
            raise
        if tee is not None:
            tee.pump(job.pid)
        status = job.wait()
        self._tell(job.pid, status)
        return status

    def _tell(self, pid: int, status: int) -> None:
        """How it ended; a daemon that is gone does not care."""
        with contextlib.suppress(NovadError):
            self._link.request("ended", name=self._name, pid=pid, status=status)


def with_output(command: Command, tee: Tee) -> Command:
    from dataclasses import replace

    return (
        replace(command, terminal=tee.child_end) if tee.has_terminal else replace(command, output=tee.child_end)
    )


def farewell(app: App, name: str, status: int, link: Link) -> str:
    """How it ended and what follows; where the daemon died meanwhile, a new one is asked to go on."""
    code = os.waitstatus_to_exitcode(status)
    how = exit_words(code, None) if code >= 0 else exit_words(None, signal_name(-code))
    try:
        with app.link() as fresh:
            process = fresh.request("status", names=[name], usage=False)["processes"][0]
            if link.ended and process["want"] != "down":
                fresh.request("start", names=[name], once=False, deps=False)
    except (NotRunning, NovadError):
        return f"{name}: {how}; no daemon runs any more"
    return f"{name}: {how}; {'supervised again' if process['want'] != 'down' else 'it stays down'}"
