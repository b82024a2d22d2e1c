"""A guardian outlives the owner of a cluster and ends what the owner leaves behind.

It is a shell that reads a FIFO which every owner holds open for writing. The kernel closes the FIFO when the last
owner is dead, however that came; the shell then becomes `sweep`. Until that moment it costs 2 MB and not one
wake-up. An owner whose cluster is down says `done` and the shell ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from novad.client import sweep
from novad.core.place import Place

# "$@" is `sweep`, "$5" its run directory. flock(1) waits for the lock that a daemon holds while it lives, and holds it
# until all is swept: a new daemon of the same cluster begins after that.
WATCH = """
daemon=
while read -r word; do
    case $word in
        done) [ -z "$daemon" ] || kill "$daemon"; exit 0 ;;
        daemon) [ -n "$daemon" ] || { flock "$5/lock" "$@" & daemon=$!; } ;;
    esac
done
[ -z "$daemon" ] || kill "$daemon"
exec "$@"
"""


# The same for a single owner: "$1" is the run directory, the rest what is to be done when the pipe ends without a word.
# A cluster that is down has left nothing there, and no interpreter need be started to see that.
WATCH_ONE = """
read -r word && exit 0
[ -e "$1/cluster.json" ] || exit 0
shift
exec "$@"
"""


def cluster_token(place: Place) -> str:
    """What the environment of each process of the cluster holds."""
    return f"NOVAD_ID={os.path.basename(place.run_dir)}/"


class Guardian:
    """The owner's end. The run directory must exist; owners of one cluster share one guardian."""

    def __init__(self, place: Place, *command_tokens: str) -> None:
        self._place = place
        self._tokens = command_tokens
        self._path = f"{place.run_dir}/guardian"
        self._child: subprocess.Popen[bytes] | None = None
        try:
            os.mkfifo(self._path, 0o600)
            self._is_first = True
        except FileExistsError:
            self._is_first = False
        # Open for reading too, so that opening never waits for the other side.
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        if self._is_first:
            self._start()

    def _start(self) -> None:
        act = [sys.executable, "-I", "-S", sweep.__file__, self._place.run_dir, cluster_token(self._place)]
        with open(self._path, "rb") as source:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", WATCH, "novad-guardian", *act, *self._tokens],
                stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
                env={"PATH": os.defpath},
            )  # fmt: skip

    def watch_daemon(self) -> None:
        """End what the daemon leaves behind too, for owners that do not look at it all the time; it must run."""
        os.write(self._fd, b"daemon\n")

    def dismiss(self) -> None:
        """The cluster is down, or is to live on without an owner: nothing is to be ended any more."""
        os.write(self._fd, b"done\n")
        os.close(self._fd)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        if self._child is not None:
            self._child.wait()

    def leave(self) -> None:
        """Other owners stay."""
        os.close(self._fd)
        if self._child is not None:
            # It lives on without us: no warning when this object is collected.
            self._child.returncode = 0

    def give_up(self) -> None:
        """It did not work: end what was begun, unless it was somebody else who began."""
        if self._is_first:
            self.sweep()
            self.dismiss()
        else:
            self.leave()

    def abandon(self) -> None:
        """In a child made by fork: only the parent is an owner."""
        os.close(self._fd)

    def sweep(self) -> bool:
        """End everything of the cluster here and now, by force; whether nothing is left."""
        return sweep.sweep([cluster_token(self._place), *self._tokens], self._place.run_dir)


class Sentry:
    """Beside an `up` that owns its cluster. While it or its daemon lives, the other one sees to everything; when both
    were killed, this does. Nobody but the owner holds the pipe, so nothing stays in the file system."""

    def __init__(self, place: Place) -> None:
        act = [sys.executable, "-I", "-S", sweep.__file__, "--bury", place.run_dir, cluster_token(place)]
        source, self._fd = os.pipe2(os.O_CLOEXEC)
        with open(source, "rb") as pipe:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", WATCH_ONE, "novad-sentry", place.run_dir, *act],
                stdin=pipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
                env={"PATH": os.defpath},
            )  # fmt: skip
        # It lives on without us: no warning when this object is collected.
        self._child.returncode = 0

    def dismiss(self) -> None:
        """The cluster is to live on without an owner."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, b"done\n")
        os.close(self._fd)
