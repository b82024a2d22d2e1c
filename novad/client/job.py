"""A command as a foreground job of this terminal, the way a shell runs one.

The child is forked at once and executes nothing before `go`, so that whoever must know its pid knows it first. It
leads a process group of its own, which owns the terminal while it runs: Ctrl-C and Ctrl-Z are the child's, and what
it did to the terminal's modes is undone afterwards. See "Implementing a Shell" in the manual of the GNU C library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from novad.core.errors import NovadError

NOT_FOUND, NOT_EXECUTABLE = 127, 126
# sd_listen_fds(3): the first passed socket.
FIRST_PASSED = 3
# Numbers from here on are out of the way of those.
HIGH = 100


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute. `listen` are named sockets, `keep` descriptors that the child inherits as they are.

    `output` replaces stdout and stderr; `terminal` is a new terminal that becomes all three and the controlling one.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    limits: Mapping[str, int] = field(default_factory=dict)
    nice: int = 0
    listen: Sequence[tuple[str, int]] = ()
    keep: Sequence[int] = ()
    output: int | None = None
    terminal: int | None = None


class CannotExecute(NovadError):
    """The command did not start: 127 where it does not exist, else 126."""

    code = "cannot_execute"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Job:
    """The child gets the terminal that `terminal_fd` reads from, where there is one."""

    def __init__(self, command: Command, terminal_fd: int | None) -> None:
        self._terminal_fd = terminal_fd
        self._command = command
        gate, self._gate = os.pipe()
        self._fate, fate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            os.close(self._fate)
            self._become(gate, fate)
        os.close(gate)
        os.close(fate)
        if command.terminal is None:
            # Both sides do it: neither may rely on the other's having been first.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(self.pid, self.pid)

    def go(self) -> None:
        """Let the child execute its command. Raises `CannotExecute`; the child is gone then, and reaped."""
        os.write(self._gate, b"g")
        self._close_gate()
        told = os.read(self._fate, 4096)
        if told:
            os.waitpid(self.pid, 0)
            number, _, path = os.fsdecode(told).partition(" ")
            code = NOT_FOUND if int(number) in (2, 20) else NOT_EXECUTABLE
            raise CannotExecute(f"cannot execute {path}: {os.strerror(int(number)).lower()}", code)

    def abandon(self) -> None:
        """The child never executes anything."""
        self._close_gate()
        os.waitpid(self.pid, 0)

    def _close_gate(self) -> None:
        os.close(self._gate)

    def wait(self) -> int:
        """The wait status of the child. A child that is stopped (Ctrl-Z) stops this process with it."""
        while True:
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                return status
            self.suspend()

    def suspend(self) -> None:
        """The terminal goes back to the shell until the user brings this job to the front again."""
        if self._terminal_fd is not None:
            own = termios.tcgetattr(self._terminal_fd)
            os.tcsetpgrp(self._terminal_fd, os.getpgrp())
            os.kill(0, signal.SIGTSTP)
            os.tcsetpgrp(self._terminal_fd, self.pid)
            termios.tcsetattr(self._terminal_fd, termios.TCSADRAIN, own)
        os.killpg(self.pid, signal.SIGCONT)

    # -- in the child

    def _become(self, gate: int, fate: int) -> NoReturn:
        command = self._command
        try:
            self._settle_down()
            if os.read(gate, 1) != b"g":
                os._exit(NOT_EXECUTABLE)
            fate = fcntl.fcntl(fate, fcntl.F_DUPFD_CLOEXEC, HIGH)
            for kept in command.keep:
                os.set_inheritable(fcntl.fcntl(kept, fcntl.F_DUPFD_CLOEXEC, HIGH), True)
            env = {**command.env, **pass_sockets(command.listen)}
            set_limits(command.limits, command.nice)
            os.chdir(command.cwd)
            os.execvpe(command.argv[0], list(command.argv), env)
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else command.argv[0]
            os.write(fate, os.fsencode(f"{error.errno or 0} {where}"))
        finally:
            os._exit(NOT_EXECUTABLE)

    def _settle_down(self) -> None:
        """A group, or with a terminal of its own a session, and signals as a shell's child has them."""
        command = self._command
        if command.terminal is not None:
            os.setsid()
            fcntl.ioctl(command.terminal, termios.TIOCSCTTY, 0)
            for number in (0, 1, 2):
                os.dup2(command.terminal, number)
        else:
            os.setpgid(0, 0)
            if self._terminal_fd is not None:
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                os.tcsetpgrp(self._terminal_fd, os.getpid())
            if command.output is not None:
                os.dup2(command.output, 1)
                os.dup2(command.output, 2)
        for number in (
            signal.SIGINT,
            signal.SIGQUIT,
            signal.SIGTSTP,
            signal.SIGTTOU,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)


def pass_sockets(listen: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Puts the sockets where sd_listen_fds(3) looks, over whatever is there; the variables that say so."""
    if not listen:
        return {}
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH) for _, fd in listen]
    for number, descriptor in enumerate(moved, FIRST_PASSED):
        os.dup2(descriptor, number, inheritable=True)
    names = ":".join(name for name, _ in listen)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(listen)), "LISTEN_FDNAMES": names}


def set_limits(limits: Mapping[str, int], nice: int) -> None:
    """Soft limits by the names of setrlimit(2) in small letters, and niceness."""
    for name, soft in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
    if nice:
        os.nice(nice)


@contextlib.contextmanager
def lent_terminal(terminal_fd: int | None) -> Iterator[None]:
    """Inside, a child may own the terminal; afterwards it is ours again, with the modes it had."""
    if terminal_fd is None:
        yield
        return
    modes = termios.tcgetattr(terminal_fd)
    # Whoever is in the background may not touch the terminal; we must, to take it back.
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            os.tcsetpgrp(terminal_fd, os.getpgrp())
            termios.tcsetattr(terminal_fd, termios.TCSADRAIN, modes)
        signal.signal(signal.SIGTTOU, before)


def own_terminal() -> int | None:
    """The descriptor of the terminal whose foreground we are, or None."""
    try:
        return 0 if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp() else None
    except OSError:
        return None
