"""The floor in Python: posix_spawn and waitpid, nothing else. usage: loop.py FILE with one command line a line."""

import os
import signal
import sys


def main() -> None:
    with open(sys.argv[1]) as file:
        commands = [line.split() for line in file if line.strip()]
    running = {}

    def start(argv: list[str]) -> None:
        running[os.posix_spawn(argv[0], argv, os.environ, setsid=True)] = argv

    def end(*_: object) -> None:
        for pid in running:
            os.kill(pid, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    for argv in commands:
        start(argv)
    while True:
        start(running.pop(os.waitpid(-1, 0)[0]))


main()
