"""The daemon's process: `python -m novad.daemon --config FILE --namespace NAME --run-dir DIR ...`.

Started by the client in a session of its own. It says one line on the ready descriptor: `ready`, `busy` (another
daemon has this cluster; exit 0), or `error: ...` (exit 1).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import sys

from novad.core.place import Place
from novad.daemon.loop import Daemon
from novad.host import ports, proc, signals


def main() -> int:
    """Runs until the cluster goes down; returns the exit code."""
    args = _arguments()
    if args.check:
        return 0
    inherited = "lock_fd" if args.lock_fd >= 0 else "ready_fd"
    setattr(args, inherited, ports.reserve_descriptors(getattr(args, inherited)))
    place = Place(
        args.config, os.path.dirname(args.config), args.namespace, args.run_dir, f"{args.run_dir}/control",
        args.state_dir, args.log_dir,
    )  # fmt: skip
    lock = args.lock_fd if args.lock_fd >= 0 else take_lock(f"{args.run_dir}/lock")
    if lock is None:
        _say(args.ready_fd, "busy")
        return 0
    try:
        proc.become_subreaper()
        signals.clean()
        os.set_inheritable(lock, False)
        daemon = Daemon(place, lock, _raise_limit(args.soft_nofile))
    except OSError as error:
        _say(args.ready_fd, f"error: {error.strerror}: {error.filename or ''}".rstrip(": "))
        return 1
    _say(args.ready_fd, "ready")
    daemon.run()
    daemon.close()
    release_lock(place.run_dir, lock)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="novad.daemon")
    parser.add_argument("--check", action="store_true", help="only see whether this code can be loaded")
    for name in ("config", "run-dir", "state-dir", "log-dir"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--lock-fd", type=int, default=-1, help="the lock, where novad has replaced its own code")
    parser.add_argument("--soft-nofile", type=int, default=-1, help="the soft limit of descriptors for children")
    return parser.parse_args()


def _say(fd: int, line: str) -> None:
    if fd < 0:
        print(line, file=sys.stderr)
        return
    try:
        os.write(fd, line.encode() + b"\n")
    except OSError:
        # The client is gone; the lease or the empty timer decides what becomes of us.
        pass
    os.close(fd)


def take_lock(path: str) -> int | None:
    """A descriptor that holds the lock of the run directory, or None when another daemon holds it.

    The winner of a removed file would share the name with nobody, hence the look at the name afterwards.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        try:
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def release_lock(run_dir: str, fd: int) -> None:
    """Nothing of the cluster stays in the run directory."""
    os.unlink(f"{run_dir}/lock")
    os.close(fd)
    try:
        os.rmdir(run_dir)
    except OSError:
        # A record of what could not be stopped, or a file of the user's.
        pass


def _raise_limit(soft: int) -> int:
    """Take all the descriptors that we may have; returns the soft limit that we were born with, for the children."""
    born, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft if soft >= 0 else born


if __name__ == "__main__":
    sys.exit(main())
