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
import signal
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
        return _born(command)
    except OSError as error:
        permanent, shortage = error.errno not in TEMPORARY, error.errno in SHORTAGE
        raise SpawnError(_explain(command, error), permanent, shortage) from error
    except ValueError as error:
        # An embedded NUL, or a limit above the hard one.
        raise SpawnError(f"cannot start {command.argv[0]!r}: {error}", True) from error


# A limit on these would hit novad itself in the moment of the spawn.
FROM_OUTSIDE = {resource.RLIMIT_NPROC, resource.RLIMIT_AS, resource.RLIMIT_DATA}
# This one too, and from outside it would be lost: an exec that is under way puts the old one back at its end.
BY_SHELL = {resource.RLIMIT_STACK}
# So many descriptors a spawn takes for itself, with some to spare for the disk's thread.
SPAWN_FDS = 16


def _born(command: Command) -> int:
    """The pid. What can only be set from outside is set before the command is executed: until then a shell waits
    for its stdin to end."""
    later = _from_outside(command)
    inherited = {
        kind: soft for kind, soft in command.limits.items() if kind not in later and kind not in BY_SHELL
    }
    is_adjusted = bool(command.nice or later)
    gate, ours = os.pipe2(os.O_CLOEXEC) if is_adjusted else (subprocess.DEVNULL, -1)
    try:
        with _soft_limits(inherited), _under_numbers(_places(command)):
            child = _popen(command, gate)
        # Only `novad.host.child` reaps; a Popen that thinks its child is running would steal the status.
        child.returncode = 0
        if is_adjusted:
            _adjust(child.pid, command.nice, later)
    finally:
        if is_adjusted:
            os.close(gate)
            os.close(ours)
    return child.pid


def _from_outside(command: Command) -> dict[int, int]:
    """The limits that novad itself cannot have for a moment. Descriptors get the lowest free number, so those that
    were made for this child say how many novad has: with hundreds of children more than a child may have."""
    later = {kind: soft for kind, soft in command.limits.items() if kind in FROM_OUTSIDE}
    nofile = command.limits.get(resource.RLIMIT_NOFILE, resource.RLIM_INFINITY)
    highest = max(command.stdout, command.stderr, *command.pass_fds, *_places(command).values())
    if nofile != resource.RLIM_INFINITY and nofile <= highest + SPAWN_FDS:
        later[resource.RLIMIT_NOFILE] = nofile
    return later


def _adjust(pid: int, nice: int, limits: Mapping[int, int]) -> None:
    """Niceness and limits of a child that waits; where they cannot be had it is ended.

    Raises `OSError` and `ValueError`.
    """
    try:
        for kind, soft in limits.items():
            resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))
        if nice:
            _set_niceness(pid, nice)
    except ProcessLookupError:
        # It was killed meanwhile, which is heard of as of every death.
        pass
    except (OSError, ValueError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _set_niceness(pid: int, nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except PermissionError as error:
        raise ValueError(f"its niceness {nice} is below our own, which only root may give") from error


def _popen(command: Command, stdin: int) -> subprocess.Popen[bytes]:
    argv, env, fds = list(command.argv), dict(command.env), list(command.pass_fds)
    steps, run = [], 'exec "$@"'
    if stdin != subprocess.DEVNULL:
        steps.append("read -r _")
        run += " </dev/null"
    steps += [f"ulimit -S -s {_kib(kind, soft)}" for kind, soft in command.limits.items() if kind in BY_SHELL]
    if command.listen:
        # Only the child itself can say its pid, which the protocol asks for.
        steps.append("export LISTEN_PID=$$")
        env["LISTEN_FDS"] = str(len(command.listen))
        env["LISTEN_FDNAMES"] = ":".join(name for name, _ in command.listen)
    fds += _places(command)
    if command.terminal:
        # A session without a terminal gets the first one that its leader opens.
        steps.append('exec <>"$0" >&0 2>&0')
        run = 'exec "$@"'
    if steps:
        _check(command)
        # A shell adds these of its own.
        own = [name for name in ("PWD", "OLDPWD", "SHLVL") if name not in env]
        steps += [f"unset {' '.join(own)}"] if own else []
        argv = ["/bin/sh", "-c", "; ".join([*steps, run]), command.terminal or "sh", *argv]
    return subprocess.Popen(
        argv,
        cwd=command.cwd,
        env=env,
        stdin=stdin,
        stdout=command.stdout,
        stderr=command.stderr,
        pass_fds=fds,
        start_new_session=True,
    )


def _kib(kind: int, soft: int) -> str:
    """A limit as a shell takes it. Raises `ValueError` for one above the hard limit."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY and not 0 <= soft <= hard:
        raise ValueError(f"its limit {soft} is above the hard limit {hard}")
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft // 1024)


def _check(command: Command) -> None:
    """Say of a command that a shell will execute what exec would say of it: the shell's word would come too late.

    Raises `OSError`.
    """
    path = _resolve(command)
    found = errno.ENOENT
    if path is not None:
        with contextlib.suppress(OSError):
            found = _exec_error(path)
    if found:
        raise OSError(found, os.strerror(found), command.argv[0])


def _exec_error(path: str, depth: int = 0) -> int:
    """0 where the file can be executed. Raises `OSError`."""
    if not os.path.isfile(path):
        return errno.EACCES if os.path.exists(path) else errno.ENOENT
    if not os.access(path, os.X_OK):
        return errno.EACCES
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except PermissionError:
        # A program need not be readable.
        return 0
    if line.startswith(b"#!"):
        # The kernel follows five interpreters that are scripts themselves.
        return _exec_error(_interpreter(path), depth + 1) if depth < 5 else errno.ELOOP
    # Other binary formats may be registered (binfmt_misc); text without a first line of this kind never is.
    return 0 if b"\0" in line or line.startswith(b"\x7fELF") else errno.ENOEXEC


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
    before = {kind: resource.getrlimit(kind) for kind in limits}
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
