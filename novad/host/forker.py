"""The template: a process that has imported what Python services share and forks them on request.

A program of its own, run by its path with the services' interpreter; it knows the standard library alone and
speaks with `novad.host.template` over one socket pair (SOCK_SEQPACKET, a JSON object a message, descriptors with
SCM_RIGHTS). When that socket closes it ends.

Invariant: between two requests it holds no thread, no greenlet and no descriptor that two processes cannot share, so
that a fork of it is as good as a fresh interpreter. What it has imported is frozen out of the garbage collector,
which otherwise would write to every object and so copy every page (gc.freeze).

A service is a grandchild: its parent ends at once, so that it becomes the child of novad, the subreaper, which then
watches and reaps it like any other. It does not begin before novad says so: a service that novad no longer waits for
reads end-of-file and is gone.

/proc/PID/environ shows the memory in which exec(2) has put the environment, so a forked service writes its own into
that place: a process that is recognised by its environment is recognised whichever way it was started.

Preloaded code may have patched `os`, `socket` and `threading`; everything here is taken from them before that.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import posix
import resource
import runpy
import socket
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from socket import recv_fds
from typing import Any

# What is passed as listening sockets must be 3, 4, 5 ... (sd_listen_fds(3)): nothing preloaded may sit there.
RESERVED = range(3, 19)
REQUEST_BYTES = 1 << 20
ROOM = "NOVAD_ROOM"
# Descriptors that two processes cannot share: what one reads or changes, the other misses.
UNSHARED = ("socket:", "pipe:", "anon_inode:")
# proc_pid_stat(5), counted from the field after the name: arg_start, arg_end, env_start, env_end.
AREAS = slice(45, 49)


@dataclass(frozen=True)
class Job:
    """What a forked service is to run, once it is a process of its own."""

    target: str
    args: list[str]


def main() -> None:
    """`forker.py FD MODULE... ROOM`: serve until the socket closes; in a forked service, run it."""
    control = socket.socket(fileno=fcntl.fcntl(int(sys.argv[1]), fcntl.F_DUPFD_CLOEXEC, RESERVED.stop))
    os.close(int(sys.argv[1]))
    null_fd = os.open(os.devnull, os.O_RDONLY)
    for number in RESERVED:
        if number != null_fd:
            os.dup2(null_fd, number, inheritable=False)
    # Kept in a service too: to free it would write to a thousand small objects, and so copy their pages.
    template = Template(control, sys.argv[2:-1])
    job = template.serve()
    if job is not None:
        run(job)


class Template:
    """The state between two forks."""

    def __init__(self, control: socket.socket, preload: list[str]) -> None:
        self._control = control
        self._preload = preload
        self._memory = Memory()
        self._files: dict[str, tuple[int, int, int]] = {}

    def serve(self) -> Job | None:
        """Answer requests; returns in a forked service, with what that is to run."""
        try:
            self._load()
        except BaseException as error:
            # Whatever a module raises: its services are started without it, and say it themselves.
            self._say({"failed": f"{type(error).__name__}: {error}"})
            return None
        self._say({"ready": True})
        while True:
            job = self._answer(*self._next_order())
            if job is not None:
                return job

    def _next_order(self) -> tuple[dict[str, Any], list[int]]:
        try:
            data, fds, _, _ = recv_fds(self._control, REQUEST_BYTES, len(RESERVED) + 4)
        except OSError:
            data = b""
        if not data:
            # novad has no use for us any more, or is gone.
            posix._exit(0)
        return json.loads(data), fds

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            posix._exit(0)

    def _load(self) -> None:
        known = set(sys.modules)
        for item in self._preload:
            name, _, function = item.partition(":")
            found: Any = importlib.import_module(name)
            for part in filter(None, function.split(".")):
                found = getattr(found, part)
            if function:
                found()
        drop_hub()
        self._files = dict(_identities(set(sys.modules) - known))
        check_shareable({self._control.fileno()})
        self._memory.show_title("novad-template", ["novad template:", *self._preload])
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()

    def _changed(self) -> str | None:
        """The path of a file that is not the one that was imported, or None."""
        return next((path for path, found in self._files.items() if _identity(path) != found), None)

    def _answer(self, order: dict[str, Any], fds: list[int]) -> Job | None:
        changed = self._changed()
        if changed is not None:
            self._say({"id": order["id"], "stale": changed})
        else:
            outcome = self._fork(order, fds)
            if isinstance(outcome, Job):
                return outcome
            self._say({"id": order["id"], **outcome})
        return None

    def _fork(self, order: dict[str, Any], fds: list[int]) -> Job | dict[str, Any]:
        """The answer, in the template; the job, in the new service."""
        reader, writer = posix.pipe()
        try:
            between = posix.fork()
        except OSError as error:
            outcome: dict[str, Any] = {"error": f"fork: {error.strerror}"}
            between = -1
        if between == 0:
            posix.close(reader)
            return self._become(order, fds, writer)
        for fd in (writer, *fds):
            posix.close(fd)
        if between > 0:
            said = posix.read(reader, 4096)
            # Only when its parent is gone is the service surely a child of novad.
            posix.waitpid(between, 0)
            outcome = json.loads(said) if said else {"error": "it died while it was being prepared"}
        posix.close(reader)
        return outcome

    def _become(self, order: dict[str, Any], fds: list[int], writer: int) -> Job:
        """Leave the template behind. Does not return before novad has said `go`."""
        try:
            if posix.fork() != 0:
                posix._exit(0)
            self._control.close()
            go_fd = prepare(order, fds, self._memory.added)
            self._memory.show_title(order["name"], order["argv"])
            self._memory.show_environment(order["env"])
        except BaseException as error:
            posix.write(writer, json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}).encode())
            posix._exit(1)
        posix.write(writer, json.dumps({"pid": posix.getpid()}).encode())
        posix.close(writer)
        if not posix.read(go_fd, 1):
            posix._exit(0)
        posix.close(go_fd)
        return Job(order["target"], order["args"])


# --- What makes a template fit to be forked -----------------------------------------------------------------


def drop_hub() -> None:
    """eventlet's hub has an epoll descriptor, which processes must not share: let the next user make a new one."""
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None:
        hubs.use_hub()
        gc.collect()


def check_shareable(own_fds: set[int]) -> None:
    """Raises `RuntimeError` where preloaded code has started something that a fork would tear apart."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a preloaded module has started a thread")
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if fd > 2 and fd not in own_fds and target.startswith(UNSHARED):
            raise RuntimeError(f"a preloaded module has opened {target}")


def _identities(modules: set[str]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The files that were imported, and the interpreter, each with what tells that it is still the same."""
    paths = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    for path in sorted({os.path.realpath(sys.executable), *filter(None, paths)}):
        found = _identity(path)
        if found is not None:
            yield path, found


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Memory:
    """The places in our memory that /proc/PID/cmdline and /proc/PID/environ show.

    They are as large as the arguments and the environment were at exec; the template is given some room on top.
    Raises `RuntimeError` where the places are not what they should be.
    """

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        self._arg_start, self._arg_end, self._env_start, self._env_end = map(int, fields[AREAS])
        with open("/proc/self/environ", "rb") as file:
            shown = file.read()
        names = {item.partition(b"=")[0] for item in shown.split(b"\0")}
        # What the interpreter sets when it starts (LC_CTYPE, PEP 538), it would set in a service too.
        self.added = {key: value for key, value in os.environ.items() if os.fsencode(key) not in names}
        if len(shown) != self._env_end - self._env_start or f"{ROOM}=".encode() not in shown:
            raise RuntimeError("the environment is not where the kernel says that it is")

    def show_title(self, name: str, argv: list[str]) -> None:
        """Be `name` in /proc/PID/comm and `argv` in cmdline, cut where the place ends."""
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(os.fsencode(name)[:15])
        size = self._arg_end - self._arg_start
        title = os.fsencode(" ".join(argv))[: size - 2]
        # A last byte that is not NUL says that the text up to the first NUL is the title (fs/proc/base.c).
        self._write(self._arg_start, title.ljust(size - 1, b"\0") + b"\1")

    def show_environment(self, env: dict[str, str]) -> None:
        """Show `env`, in its order, as far as it fits. `os.environ` must have been set anew before.

        Until then C's `environ` points into the place that is overwritten here.
        """
        size, text = self._env_end - self._env_start, b""
        for key, value in env.items():
            item = os.fsencode(f"{key}={value}") + b"\0"
            if len(text) + len(item) <= size:
                text += item
        self._write(self._env_start, text.ljust(size, b"\0"))

    def _write(self, address: int, data: bytes) -> None:
        fd = posix.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, address)
        finally:
            posix.close(fd)


# --- A service of its own -----------------------------------------------------------------------------------


def prepare(order: dict[str, Any], fds: list[int], added: dict[str, str]) -> int:
    """Make this process what a fresh one would be; returns the descriptor that `go` is read from.

    `fds` are go, lock, stdout, stderr, and the listening sockets; `added` is the environment that an interpreter
    adds to the given one.
    """
    os.setsid()
    go_fd = _place(fds)
    env: dict[str, str] = order["env"]
    if "LISTEN_FDS" in env:
        env["LISTEN_PID"] = str(posix.getpid())
    os.environ.clear()
    os.environ.update(added | env)
    time.tzset()
    os.chdir(order["cwd"])
    for kind, soft in order["limits"]:
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
    if order["nice"]:
        os.setpriority(os.PRIO_PROCESS, 0, order["nice"])
    sys.orig_argv[:] = order["argv"]
    return go_fd


def _place(fds: list[int]) -> int:
    """Each descriptor where the service expects it; all that arrive are above the reserved ones."""
    go_fd, lock_fd, *given = fds
    os.set_inheritable(lock_fd, True)
    for number, fd in zip((1, 2, *RESERVED), given, strict=False):
        os.dup2(fd, number)
        posix.close(fd)
    for number in RESERVED[len(given) - 2 :]:
        posix.close(number)
    return go_fd


def run(job: Job) -> None:
    """As `python -m module` or `python -c "...module.function()"`: the same output, the same exit code."""
    fresh = types.ModuleType("__main__")
    fresh.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = fresh
    module, _, function = job.target.partition(":")
    sys.argv[:] = ["-c" if function else "-m", *job.args]
    try:
        if function:
            code = f"import sys, {module} as module; sys.exit(module.{function}())"
            exec(compile(code, "<string>", "exec"), fresh.__dict__)
        else:
            if "" in sys.path:
                sys.path[sys.path.index("")] = os.getcwd()
            # What the interpreter itself calls for -m.
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
    except SystemExit:
        raise
    except KeyboardInterrupt as error:
        _print(error)
        # The interpreter itself ends by SIGINT now, and must not print it once more.
        sys.excepthook = lambda *_: None
        raise
    except BaseException as error:
        _print(error)
        sys.exit(1)


def _print(error: BaseException) -> None:
    """The traceback without the frames that lie above the service."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == run.__code__.co_filename:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


if __name__ == "__main__":
    main()
