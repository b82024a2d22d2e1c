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


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute. `argv[0]` is searched in the PATH of `env`; `stdout` and `stderr` are descriptors.

    `limits` are soft limits by the numbers of `resource`.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    stdout: int
    stderr: int
    pass_fds: Iterable[int] = ()
    limits: Mapping[int, int] = field(default_factory=dict)


class SpawnError(Exception):
    """The command did not start. `permanent`: trying again cannot help until somebody changes something."""

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent


TEMPORARY = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR}


def spawn(command: Command) -> int:
    """The pid of the new process, the leader of its own session and group. Raises `SpawnError`."""
    try:
        with _soft_limits(command.limits):
            child = _popen(command)
    except OSError as error:
        raise SpawnError(_explain(command, error), error.errno not in TEMPORARY) from error
    except ValueError as error:
        # An embedded NUL, or a limit above the hard one.
        raise SpawnError(f"cannot start {command.argv[0]!r}: {error}", True) from error
    # Only `novad.host.child` reaps; a Popen that thinks its child is running would steal the status.
    child.returncode = 0
    return child.pid


def _popen(command: Command) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command.argv),
        cwd=command.cwd,
        env=command.env,
        stdin=subprocess.DEVNULL,
        stdout=command.stdout,
        stderr=command.stderr,
        pass_fds=tuple(command.pass_fds),
        start_new_session=True,
    )


@contextlib.contextmanager
def _soft_limits(limits: Mapping[int, int]) -> Iterator[None]:
    """The child is born with these limits; novad has them for the moment of the spawn."""
    before = {kind: resource.getrlimit(kind) for kind in limits}
    try:
        for kind, soft in limits.items():
            resource.setrlimit(kind, (soft, before[kind][1]))
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
