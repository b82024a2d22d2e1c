"""What can go wrong in novad, by whose fault it is.

Every error says what, which, and what to type next (`hint`); the command line maps the class to an exit code.
"""

from __future__ import annotations


class NovadError(Exception):
    """An error that a user can read: one sentence, and a hint (a sentence or a command) where there is one."""

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NovadError):
    """The command line is wrong."""

    exit_code = 2
    code = "usage"


class NotRunning(NovadError):
    """No daemon answers for this project."""

    exit_code = 3
    code = "not_running"


class NoSuchService(NovadError):
    """A name, group or glob that matches no process."""

    exit_code = 4
    code = "no_such_service"


class ConfigError(NovadError):
    """nova.toml, or a file it names, is at fault."""

    exit_code = 78
    code = "config"


class WireError(NovadError):
    """The other side of the control socket sent what the protocol does not allow."""

    code = "protocol"


BY_CODE: dict[str, type[NovadError]] = {
    kind.code: kind for kind in (NovadError, UsageError, NotRunning, NoSuchService, ConfigError, WireError)
}
