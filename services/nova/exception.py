"""What can go wrong in nova, by whose fault it is; Nova's names kept.

`exit_code` is what a process ends with when the error reaches `launch`: 100 tells a supervisor that starting
again is of no use, 111 that it is (the numbers of daemontools-encore and qmail). Errors of remote calls live in
`nova.rpc`.
"""

from __future__ import annotations

EXIT_CLEAN = 0
EXIT_FAILED = 1
EXIT_HARD_STOP = 3
EXIT_DRAIN_TIMED_OUT = 4
EXIT_PERMANENT = 100
EXIT_TEMPORARY = 111


class Error(Exception):
    """An error that a person can read: one sentence that says what, which and what happens next."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class ApiError(Error):
    """A request that cannot be served; `code` is the word that the protocol gives to it."""

    def __init__(self, message: str = "", code: str = "ApiError") -> None:
        super().__init__(message)
        self.code = code


class NotFound(Error):
    """The thing named does not exist."""


class Duplicate(Error):
    """The thing named exists already."""


class NotAuthorized(Error):
    """The caller may not do this."""


class NotEmpty(Error):
    """The container still holds something."""


class NoMoreAddresses(Error):
    """Every address is in use."""


class Invalid(Error):
    """The value given is not acceptable."""


class FlagError(Error):
    """A flag, its value or the file it came from is wrong; a restart cannot help."""

    exit_code = EXIT_PERMANENT


class NoManager(FlagError):
    """No manager class can be found for a binary; a restart cannot help."""


class TemporaryError(Error):
    """Something that this process needs is away; a restart later may help."""

    exit_code = EXIT_TEMPORARY


class DatabaseUnavailable(TemporaryError):
    """The database did not answer in time."""


class ProcessExecutionError(IOError):
    """A program failed, could not be started, or ran out of time.

    `exit_code` is None where the program never ran; a negative number is the signal that ended it.
    """

    def __init__(
        self,
        stdout: str | bytes | None = None,
        stderr: str | bytes | None = None,
        exit_code: int | None = None,
        cmd: str | None = None,
        description: str | None = None,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.exit_code = exit_code
        self.cmd = cmd
        self.description = description or "unexpected error while running a command"
        super().__init__(
            f"{self.description}\ncommand: {cmd}\nexit code: {exit_code}\nstdout: {stdout!r}\nstderr: {stderr!r}"
        )
