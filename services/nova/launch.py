"""The entry of every nova-* binary: the name decides, all else is flags.

Order matters here. A TERM while modules are imported ends the process cleanly, since nothing has begun;
nova-broker is handed over before eventlet is imported, which it does without; then the standard library is
patched, before anything else may take a lock; then flags, logging, services.

The process stays in the foreground, keeps its pid, writes no pidfile, and ends with a code of `nova.exception`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_early_code = 0


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the binary that `argv[0]` names and end the process with its code."""
    _open_closed_streams()
    argv = list(sys.argv if argv is None else argv)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _end_early)
    binary = os.path.basename(argv[0])
    if binary == "nova-broker":
        from nova.broker.main import main as broker

        sys.exit(broker(argv[1:]))
    from nova import green

    green.patch()
    _end(_run(binary, argv))


def _open_closed_streams() -> None:
    """A standard stream that was closed leads to /dev/null, or the next file opened would be taken for it."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def _end_early(number: int, frame: Any) -> None:
    os._exit(_early_code)


def _end(code: int) -> NoReturn:
    """Leave at once: threads of libraries, and greenlets that were dropped, have nothing more to say."""
    global _early_code
    _early_code = code
    from nova import log

    log.flush()
    sys.stdout.flush()
    os._exit(code)


def _run(binary: str, argv: list[str]) -> int:
    """The exit code of the binary's whole life."""
    from nova import exception, flags, launcher, log

    topic = binary.rpartition("nova-")[2]
    try:
        rest = flags.FLAGS(argv, late=True, section=topic)
        log.setup()
        if rest[1:]:
            raise exception.FlagError(f"{rest[1]!r}: a service takes flags only")
        entries = _services(binary, topic)
        if flags.FLAGS.help or flags.FLAGS.dump_flags:
            print(flags.FLAGS.usage(binary) if flags.FLAGS.help else flags.FLAGS.dump(), end="")
            return exception.EXIT_CLEAN
        flags.FLAGS.finish()
        return _serve(launcher.Launcher(name=binary), entries)
    except exception.Error as error:
        print(f"{binary}: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _services(binary: str, topic: str) -> list[tuple[Any, int]]:
    """The services of a binary, each with its tier. Raises `NoManager`."""
    if topic == "combined":
        import nova.combined as combined

        entries: list[tuple[Any, int]] = combined.services()
        return entries
    from nova.binary import create

    return [(create(binary), 0)]


def _serve(launcher: Any, entries: list[tuple[Any, int]]) -> int:
    import logging

    from nova import flags

    for remark in flags.FLAGS.unknown_in_file():
        logging.getLogger(__name__).warning(remark)
    for service, tier in entries:
        launcher.launch_service(service, tier)
    return launcher.wait()
