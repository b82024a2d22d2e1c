"""Does what TROUBLE says.

`start` crashes before it is ready, `once` only in its first life, `crash` when it is asked to (USR1), `slow` takes its
time.
"""

import os
import signal
import sys
import time
from pathlib import Path

TROUBLE = os.environ["TROUBLE"]


def asked(*_: object) -> None:
    if TROUBLE == "crash":
        raise KeyError("vcpus")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, asked)
    if TROUBLE == "start":
        raise RuntimeError("no luck today")
    if TROUBLE == "once" and not Path("begun").exists():
        Path("begun").touch()
        raise RuntimeError("no luck the first time")
    if TROUBLE == "slow":
        time.sleep(0.5)
    print("flaky: ready", flush=True)
    while True:
        signal.pause()


main()
