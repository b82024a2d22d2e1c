"""Starts the daemon, detached from the terminal, and waits for the one line that says how it went.

Many `up` at once give one daemon: the daemon takes a lock, a loser says `busy`, and its client connects to the
winner. This module makes the directories, because it runs as the user in the user's terminal, where a refusal
can be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from novad.client.deadline import Deadline
from novad.client.interrupts import readable
from novad.client.link import Link, connect
from novad.client.private import is_anybodys, private_directory, private_file, replace_file
from novad.core.errors import NotRunning, NovadError
from novad.core.place import Place
from novad.core.wire import Request

START_S = 30.0
RETRY_S = 0.02
WINNER_S = 5.0
TAIL_LINES = 12
SOCKET_MAX_BYTES = 103  # sun_path on macOS; Linux has 107

Trace = Callable[[Request], None] | None


def connect_or_launch(place: Place, trace: Trace = None) -> tuple[Link, bool]:
    """A link to the daemon of `place`, and whether this call started it. Raises `NovadError`."""
    deadline = Deadline(START_S)
    started = busy = False
    while True:
        try:
            return connect_within(place, WINNER_S if busy else 0.0, trace), started
        except NotRunning:
            if deadline.is_over:
                raise NovadError(
                    f"no daemon answers on {place.socket}, and none could be started within {START_S:g} s",
                    f"see {place.state_dir}/novad.log",
                ) from None
        busy = launch(place, deadline) == "busy"
        started = not busy


def connect_or_revive(place: Place, trace: Trace = None) -> Link:
    """A link to the daemon; where it was killed and its processes still run, a new one takes them over.

    Raises `NotRunning` where there is nothing to take over.
    """
    try:
        return connect(place, trace)
    except NotRunning:
        if not has_records(place):
            raise
    return connect_or_launch(place, trace)[0]


def has_records(place: Place) -> bool:
    """Whether a daemon of this boot left a cluster behind that it did not take down."""
    try:
        with open(f"{place.run_dir}/cluster.json", "rb") as source:
            written = json.load(source)
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and written.get("boot_id") == boot_id


def connect_within(place: Place, timeout_s: float, trace: Trace) -> Link:
    """Connects, trying again for `timeout_s`: the winner of a race may hold its lock and not listen yet."""
    deadline = Deadline(timeout_s)
    while True:
        try:
            return connect(place, trace)
        except NotRunning:
            if deadline.is_over:
                raise
        time.sleep(RETRY_S)


def launch(place: Place, deadline: Deadline) -> str:
    """Starts one daemon; `ready`, or `busy` where another one holds the lock. Raises `NovadError`."""
    prepare(place)
    log = Path(place.state_dir) / "novad.log"
    reader, writer = os.pipe()
    try:
        with open(private_file(log), "ab") as sink:
            offset = sink.tell()
            child = subprocess.Popen(
                command(place, writer),
                cwd=place.dir,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=(writer,),
                start_new_session=True,
            )
        os.close(writer)
        writer = -1
        line = read_line(reader, deadline)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if line is None:
        child.kill()
        raise NovadError(f"the daemon (pid {child.pid}) did not get ready in {START_S:g} s", f"see {log}")
    if line in ("ready", "busy"):
        detach(child)
        return line
    if line.startswith("error: "):
        child.wait()
        raise NovadError(line.removeprefix("error: "), f"see {log}")
    raise NovadError(death_notice(child, log, offset), f"see {log}")


def command(place: Place, ready_fd: int) -> list[str]:
    """The daemon's command line. `-P`: a file of the project must not shadow a module of the daemon."""
    return [
        sys.executable, "-P", "-m", "novad.daemon",
        "--config", place.config,
        "--namespace", place.namespace,
        "--run-dir", place.run_dir,
        "--state-dir", place.state_dir,
        "--log-dir", place.log_dir,
        "--ready-fd", str(ready_fd),
    ]  # fmt: skip


def detach(child: subprocess.Popen[bytes]) -> None:
    """It lives on without us: no warning when this object is collected."""
    child.returncode = 0


def read_line(reader: int, deadline: Deadline) -> str | None:
    """What the daemon said; "" when it died without a word, None when the time ran out."""
    data = b""
    while b"\n" not in data:
        if not readable([reader], deadline.left_s()):
            return None
        chunk = os.read(reader, 65536)
        if not chunk:
            return data.decode(errors="replace").strip()
        data += chunk
    return data.split(b"\n", 1)[0].decode(errors="replace")


def death_notice(child: subprocess.Popen[bytes], log: Path, offset: int) -> str:
    try:
        code = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        code = None
    how = "gave no sign of life" if code is None else f"ended with status {code} before it was ready"
    with log.open("rb") as source:
        source.seek(offset)
        tail = source.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"the daemon {how}", *(f"  | {line}" for line in tail)])


def prepare(place: Place) -> None:
    """Makes the directories. Raises `NovadError` where one is not ours, not private or cannot be made."""
    if len(os.fsencode(place.socket)) > SOCKET_MAX_BYTES:
        raise NovadError(
            f"{place.socket}: longer than the {SOCKET_MAX_BYTES} bytes that the address of a socket may have",
            "set XDG_RUNTIME_DIR or TMPDIR to a shorter directory",
        )
    base = Path(place.run_dir).parent
    try:
        private_directory(base)
        if is_anybodys(base.parent):
            raise NovadError(
                f"{base.parent}: everybody may exchange what is in it",
                f"chmod +t {base.parent}, or set XDG_RUNTIME_DIR",
            )
        for path in (place.run_dir, place.state_dir, place.log_dir):
            private_directory(Path(path))
        ignore = Path(place.state_dir) / ".gitignore"
        if not ignore.exists():
            replace_file(ignore, "*\n")
    except OSError as error:
        raise NovadError(f"{error.filename}: {error.strerror}", "novad -C DIR names another project") from error
