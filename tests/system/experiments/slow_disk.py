"""A disk that takes half a second for every write of novad's."""

from __future__ import annotations

import time
from pathlib import Path

from tests.system.board import experiment, quantile, require, spread_ms, until
from tests.system.site import Site
from tests.system.tracing import tampered

WRITES = ("write", "writev", "pwrite64", "fsync", "fdatasync")


def _files(site: Site) -> list[str]:
    """All that the daemon writes to disk."""
    where = site.running.place
    folders = {Path(where.run_dir), Path(where.state_dir), Path(where.log_dir)}
    return sorted({str(path) for folder in folders for path in folder.rglob("*") if path.is_file()})


@experiment(
    "R28",
    "a disk that takes half a second for each write",
    short={"requests": 20, "delay_s": 0.5, "p99_s": 0.4},
    full={"requests": 500, "delay_s": 0.5, "p99_s": 0.1},
    controls={"a disk that is quick": {"delay_s": 0.0001}},
)
def slow_disk(site: Site, requests: int, delay_s: float, p99_s: float) -> str:
    """novad answers all the same, and its journal says that the disk is slow."""
    talker = site.shell("talker", "while :; do echo a line; sleep 0.05; done")
    client = site.up(site.sleeper("quiet"), talker)
    client.ask("status")
    took_s = []
    with tampered([site.pid], WRITES, f"delay_enter={int(delay_s * 1e6)}", _files(site)):
        for number in range(requests):
            began_s = time.monotonic()
            # The signal is noted in the log; a status writes nothing.
            client.ask("status") if number % 5 else client.ask("signal", names=["quiet"], signal="CONT")
            took_s.append(time.monotonic() - began_s)
            site.bell.hear_for(0.02)
    # The line waits in the same queue: it is on the disk once that is quick again.
    journal = Path(site.running.place.journal)
    until(
        lambda: "slow_disk" in journal.read_text(),
        10,
        f"the journal says that the disk is slow: {spread_ms(took_s)}",
    )
    require(quantile(took_s, 0.99) <= p99_s, f"p99 <= {p99_s * 1000:g} ms: {spread_ms(took_s)}")
    return f"{requests} requests at {delay_s:g} s a write: {spread_ms(took_s)}; the journal says so"
