"""Does what TROUBLE says: `start` crashes before it is ready, `crash` crashes once when it is asked to (USR1)."""

import os
import signal
import sys

TROUBLE = os.environ["TROUBLE"]


def asked(*_: object) -> None:
    if TROUBLE == "crash":
        raise KeyError("vcpus")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, asked)
    if TROUBLE == "start":
        raise RuntimeError("no luck today")
    print("flaky: ready", flush=True)
    while True:
        signal.pause()


main()
