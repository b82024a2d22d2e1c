"""strace on processes that run: what system calls of theirs return, and at which one they die."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.system.board import Skip, until


@contextlib.contextmanager
def tampered(pids: Sequence[int], calls: Sequence[str], fault: str, paths: Sequence[str] = ()) -> Iterator[None]:
    """Every one of `calls` that `pids` make meets `fault`, as strace's `inject=` takes it; each thread that they have
    by now counts its own calls, and neither later ones nor children are touched. Only calls about `paths`, where given.

    Raises `Skip` where there is no strace, or where it may not attach.
    """
    if shutil.which("strace") is None:
        raise Skip("no strace, which tampers with system calls (apt-get install strace)")
    # The question mark: not every machine has every call.
    kinds = ",".join(f"?{call}" for call in calls)
    threads = [int(name) for pid in pids for name in os.listdir(f"/proc/{pid}/task")]
    attach = [word for thread in threads for word in ("-p", str(thread))]
    where = [word for path in paths for word in ("-P", path)]
    with tempfile.TemporaryFile("w+") as said:
        tracer = subprocess.Popen(
            ["strace", "-o", "/dev/null", *attach, *where, "-e", f"trace={kinds}", "-e", f"inject={kinds}:{fault}"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            until(lambda: tracer.poll() is not None or all(map(_is_traced, threads)), 10, "strace attaches")
            if tracer.poll() is not None:
                said.seek(0)
                raise Skip(f"strace cannot attach: {said.read().strip()}")
            yield
        finally:
            # At SIGTERM strace lets go of the processes and ends.
            with contextlib.suppress(ProcessLookupError):
                tracer.terminate()
            tracer.wait(10)


def _is_traced(thread: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{thread}/status").read_text()
