"""Programs run from a service, in place of Twisted's process pool: `execute`, `Process`, `ProcessPool`.

A command is a list of words, never a line for a shell. However a command goes, the answer has one shape:
`(stdout, stderr)`, or `ProcessExecutionError` - for a bad exit code, for a time that ran out, for a program that
does not exist. Each program leads a session of its own; ending it ends all that it started. A program has ended
when its own process has: a grandchild that keeps the pipes open is not waited for.

The hub never waits here, and nobody polls: pipes are read as they fill and the end comes through a pidfd.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nova import flags, green
from nova.exception import ProcessExecutionError

__all__ = [
    "Options",
    "Process",
    "ProcessExecutionError",
    "ProcessPool",
    "SharedPool",
    "execute",
    "simple_execute",
]

FLAGS = flags.FLAGS
flags.DEFINE_integer("process_pool_size", 4, "programs that the shared pool runs at the same time", least=1)

# After the end of a program, what is still in its pipes has arrived already, unless others hold them open.
PIPE_GRACE_S = 0.1
POLL_S = 0.01  # where the kernel has no pidfd
CHUNK = 64 * 1024

Output = tuple[Any, Any]


class Process:
    """One program that runs. `wait` may be called once; `kill` at any time, by anyone."""

    def __init__(
        self,
        *cmd: Any,
        process_input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        addl_env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Start it. `env` replaces the environment, `addl_env` is laid over it.

        Raises `ProcessExecutionError`.
        """
        subprocess = green.original("subprocess")
        self.cmd = [os.fspath(word) if hasattr(word, "__fspath__") else str(word) for word in cmd]
        environment = None
        if env is not None or addl_env is not None:
            environment = {**(os.environ if env is None else env), **(addl_env or {})}
        try:
            self._popen = subprocess.Popen(
                self.cmd,
                stdin=subprocess.DEVNULL if process_input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise self._error(None, f"cannot run {self.cmd[0] if self.cmd else ''!r}: {error}") from error
        self._output: tuple[list[bytes], list[bytes]] = ([], [])
        self._greenlets = [
            green.spawn(_read_all, stream, into)
            for stream, into in zip((self._popen.stdout, self._popen.stderr), self._output, strict=True)
        ]
        if process_input is not None:
            data = process_input.encode() if isinstance(process_input, str) else process_input
            self._greenlets.append(green.spawn(_write_all, self._popen.stdin, data))

    @property
    def pid(self) -> int:
        return int(self._popen.pid)

    def kill(self) -> None:
        """End the program and all that it started and that has not left its session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) once it has ended; a negative code is a signal.

        Raises `ProcessExecutionError` when that takes longer than `timeout_s` seconds; then it has been killed.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            in_time = self._wait_end(deadline_s)
            if not in_time:
                self.kill()
                self._wait_end(None)
            self._wait_pipes()
        finally:
            self._close()
        if not in_time:
            raise self._error(self._popen.returncode, f"timed out after {timeout_s:g} s and was killed")
        return self._popen.returncode, *self._texts()

    def _wait_end(self, deadline_s: float | None) -> bool:
        """Whether it has ended by then."""
        fd = _open_pidfd(self.pid) if self._popen.poll() is None else -1
        try:
            while self._popen.poll() is None:
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                if fd < 0:
                    green.sleep(POLL_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    green.wait_read(fd, left_s)
        finally:
            if fd >= 0:
                os.close(fd)
        return True

    def _wait_pipes(self) -> None:
        with green.Timeout(PIPE_GRACE_S, False):
            for greenlet in self._greenlets:
                greenlet.wait()

    def _close(self) -> None:
        """Leave nothing behind, also when the greenlet that waits is killed."""
        if self._popen.poll() is None:
            self.kill()
            self._popen.wait()  # SIGKILL: at once
        for greenlet in self._greenlets:
            greenlet.kill()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()

    def _texts(self) -> tuple[bytes, bytes]:
        return b"".join(self._output[0]), b"".join(self._output[1])

    def _error(self, code: int | None, description: str) -> ProcessExecutionError:
        stdout, stderr = self._texts() if hasattr(self, "_output") else (b"", b"")
        return ProcessExecutionError(_text(stdout), _text(stderr), code, shlex.join(self.cmd), description)


@dataclass(frozen=True, slots=True)
class Options:
    """How `execute` judges and repeats. `check_exit_code` True is 0 only, False anything, a list those codes."""

    check_exit_code: bool | Sequence[int] = True
    check_stderr: bool = False
    timeout: float | None = None
    attempts: int = 1
    delay_on_retry: float = 0.0
    text: bool = True


def execute(*cmd: Any, pool: ProcessPool | None = None, **options: Any) -> Output:
    """Run a command and return (stdout, stderr): text, or bytes with `text=False`.

    `process_input`, `env`, `addl_env` and `cwd` are those of `Process`; all other options are `Options`.
    `timeout` is in seconds; past it the program and its children are killed. `check_stderr` makes any output
    there an error. `attempts` repeats what failed, `delay_on_retry` seconds later.

    Raises `ProcessExecutionError`.
    """
    judging = {name: options.pop(name) for name in Options.__slots__ if name in options}
    how = Options(**judging)
    for attempt in range(how.attempts):
        try:
            with pool.slot() if pool is not None else contextlib.nullcontext():
                return _execute_once(cmd, how, options)
        except ProcessExecutionError:
            if attempt + 1 >= how.attempts:
                raise
        green.sleep(how.delay_on_retry)
    raise ValueError(f"attempts must be at least 1, not {how.attempts}")


def _execute_once(cmd: Sequence[Any], how: Options, options: dict[str, Any]) -> Output:
    process = Process(*cmd, **options)
    code, stdout, stderr = process.wait(how.timeout)
    accepted = how.check_exit_code
    if isinstance(accepted, bool):
        accepted = [0] if accepted else [code]
    if code not in accepted:
        raise process._error(code, f"ended with {code}")
    if how.check_stderr and stderr:
        raise process._error(code, "wrote to stderr")
    return (_text(stdout), _text(stderr)) if how.text else (stdout, stderr)


def simple_execute(line: str, **options: Any) -> Output:
    """`execute` for a line, split as a shell would, without a shell."""
    return execute(*shlex.split(line), **options)


class ProcessPool:
    """At most `size` programs at the same time; whoever comes later waits, in order."""

    def __init__(self, size: int | None = None) -> None:
        self.size = FLAGS.process_pool_size if size is None else size
        self._free = green.Semaphore(self.size)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """One of the places, for the time of the block."""
        with self._free:
            yield

    def execute(self, *cmd: Any, **options: Any) -> Output:
        """As the function of that name, within the limit. Raises `ProcessExecutionError`."""
        return execute(*cmd, pool=self, **options)

    def simple_execute(self, line: str, **options: Any) -> Output:
        """As the function of that name, within the limit. Raises `ProcessExecutionError`."""
        return self.execute(*shlex.split(line), **options)


_shared: ProcessPool | None = None


def SharedPool() -> ProcessPool:
    """The pool that everybody shares, of `--process_pool_size`."""
    global _shared
    if _shared is None:
        _shared = ProcessPool()
    return _shared


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def _read_all(stream: Any, into: list[bytes]) -> None:
    fd, read = stream.fileno(), green.original("os").read
    os.set_blocking(fd, False)
    while True:
        try:
            data = read(fd, CHUNK)
        except BlockingIOError:
            green.wait_read(fd)
            continue
        if not data:
            return
        into.append(data)


def _write_all(stream: Any, data: bytes) -> None:
    fd, write, view = stream.fileno(), green.original("os").write, memoryview(data)
    os.set_blocking(fd, False)
    with contextlib.suppress(BrokenPipeError):
        while view:
            try:
                view = view[write(fd, view) :]
            except BlockingIOError:
                green.wait_write(fd)
    stream.close()
