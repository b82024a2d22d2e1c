"""Starting one command in a clean process: new session, its own descriptors, no inherited signal state.

The start is synchronous: an exec that fails is an error here, with the path and the reason, not an exit code 127
of a forked child. `subprocess` spawns with vfork, which costs a quarter of a millisecond and does not grow with
the size of novad; `preexec_fn` would turn that off.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from novad.host.ports import FIRST_PASSED


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute. `argv[0]` is searched in the PATH of `env`; `stdout` and `stderr` are descriptors.

    `limits` are soft limits by the numbers of `resource`; `listen` are names and descriptors of listening sockets,
    which the child finds as 3, 4, 5 ... (sd_listen_fds(3)); `placed` are other descriptors by the number that the
    child finds them under, which must be one that `reserve_descriptors` keeps free. `terminal` is the path of a
    terminal that becomes the controlling one of the new session.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    stdout: int
    stderr: int
    pass_fds: Iterable[int] = ()
    limits: Mapping[int, int] = field(default_factory=dict)
    nice: int = 0
    listen: Sequence[tuple[str, int]] = ()
    terminal: str = ""
    placed: Mapping[int, int] = field(default_factory=dict)


class SpawnError(Exception):
    """The command did not start. `permanent`: trying again cannot help until somebody changes something; `shortage`:
    it is the machine that has no room for it now."""

    def __init__(self, message: str, permanent: bool, shortage: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent
        self.shortage = shortage


SHORTAGE = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
TEMPORARY = {*SHORTAGE, errno.ETXTBSY, errno.EINTR}


def spawn(command: Command) -> int:
    """The pid of the new process, the leader of its own session and group. Raises `SpawnError`."""
    try:
        with _soft_limits(command.limits), _under_numbers(_places(command)):
            child = _popen(command)
    except OSError as error:
        permanent, shortage = error.errno not in TEMPORARY, error.errno in SHORTAGE
        raise SpawnError(_explain(command, error), permanent, shortage) from error
    except ValueError as error:
        # An embedded NUL, or a limit above the hard one.
        raise SpawnError(f"cannot start {command.argv[0]!r}: {error}", True) from error
    # Only `novad.host.child` reaps; a Popen that thinks its child is running would steal the status.
    child.returncode = 0
    _adjust(child.pid, command)
    return child.pid


# A limit on these would hit novad itself in the moment of the spawn.
AFTERWARDS = {resource.RLIMIT_NPROC, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK}


def _adjust(pid: int, command: Command) -> None:
    """What is set from outside, right after the birth."""
    try:
        for kind, soft in command.limits.items():
            if kind in AFTERWARDS:
                resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))
        if command.nice:
            os.setpriority(os.PRIO_PROCESS, pid, command.nice)
    except (ProcessLookupError, PermissionError):
        # It is gone already, or runs as somebody else by now.
        pass


def _popen(command: Command) -> subprocess.Popen[bytes]:
    argv, env, fds = list(command.argv), dict(command.env), list(command.pass_fds)
    steps = []
    if command.listen:
        # Only the child itself can say its pid, which the protocol asks for.
        steps.append("export LISTEN_PID=$$")
        env["LISTEN_FDS"] = str(len(command.listen))
        env["LISTEN_FDNAMES"] = ":".join(name for name, _ in command.listen)
    fds += _places(command)
    if command.terminal:
        # A session without a terminal gets the first one that its leader opens.
        steps.append('exec <>"$0" >&0 2>&0')
    if steps:
        if _resolve(command) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        argv = ["/bin/sh", "-c", "; ".join([*steps, 'exec "$@"']), command.terminal or "sh", *argv]
    return subprocess.Popen(
        argv,
        cwd=command.cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=command.stdout,
        stderr=command.stderr,
        pass_fds=fds,
        start_new_session=True,
    )


def _places(command: Command) -> dict[int, int]:
    """Descriptors of ours by the number that the child finds them under."""
    sockets = {FIRST_PASSED + index: fd for index, (_, fd) in enumerate(command.listen)}
    return {**sockets, **command.placed}


@contextlib.contextmanager
def _under_numbers(places: Mapping[int, int]) -> Iterator[None]:
    """The descriptors have the numbers that the child must find them under, for the moment of the spawn."""
    for number, fd in places.items():
        os.dup2(fd, number, inheritable=False)
    try:
        yield
    finally:
        if places:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for number in places:
                os.dup2(null, number, inheritable=False)
            os.close(null)


@contextlib.contextmanager
def _soft_limits(limits: Mapping[int, int]) -> Iterator[None]:
    """The child is born with these limits; novad has them for the moment of the spawn."""
    before = {kind: resource.getrlimit(kind) for kind in limits if kind not in AFTERWARDS}
    try:
        for kind, pair in before.items():
            resource.setrlimit(kind, (limits[kind], pair[1]))
        yield
    finally:
        for kind, pair in before.items():
            resource.setrlimit(kind, pair)


def _explain(command: Command, error: OSError) -> str:
    program = command.argv[0]
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES) and not _is_usable_directory(command.cwd):
        return f"cannot start {program}: its directory {command.cwd}: {_directory_reason(command.cwd)}"
    path = _resolve(command)
    if error.errno == errno.ENOENT:
        if path is None:
            return _not_found(command)
        interpreter = _interpreter(path)
        return f"cannot start {path}: its interpreter {interpreter} does not exist"
    if error.errno == errno.EACCES:
        return f"cannot start {path or program}: {_access_reason(path or program)}"
    if error.errno == errno.ENOEXEC:
        return f"cannot start {path or program}: it is neither a program nor a script that begins with #!"
    if error.errno == errno.E2BIG:
        return f"cannot start {program}: its arguments and environment are too long for the kernel"
    return f"cannot start {path or program}: {reason}"


def _resolve(command: Command) -> str | None:
    program = command.argv[0]
    if os.path.dirname(program):
        path = os.path.join(command.cwd, program)
        return path if os.path.lexists(path) else None
    for folder in os.get_exec_path(command.env):
        path = os.path.join(folder, program)
        if os.path.exists(path) and not os.path.isdir(path):
            return path
    return None


def _not_found(command: Command) -> str:
    program = command.argv[0]
    if os.path.dirname(program):
        return f"cannot start {os.path.join(command.cwd, program)}: no such file"
    near = shutil.which(program)
    extra = f" (novad itself would find {near})" if near else ""
    return f"cannot start {program}: no such command in its PATH{extra}"


def _interpreter(path: str) -> str:
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return "?"
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else "(the loader that the program names)"


def _access_reason(path: str) -> str:
    if os.path.isdir(path):
        return "it is a directory"
    return "permission denied (is it executable? chmod +x)"


def _is_usable_directory(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.X_OK)


def _directory_reason(path: str) -> str:
    if not os.path.lexists(path):
        return "no such directory"
    return "permission denied" if os.path.isdir(path) else "it is not a directory"
