"""Ports for processes of tests."""

from __future__ import annotations

import random
import socket


def port_for_a_restart() -> int:
    """A free port below those that the kernel gives out (ip(7)), so that nobody has it when it is wanted again."""
    while True:
        number = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
        return number
