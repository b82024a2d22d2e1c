"""Ctrl-C while a command waits: heard in whatever moment it comes."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time

import pytest

from novad.client.interrupts import Interrupts, readable


def test_no_moment_of_a_wait_is_deaf_to_a_signal() -> None:
    """The moment between the interpreter's last look and the system call is a microsecond: many are tried."""

    class Heard(Exception):
        pass

    def hear(*_: object) -> None:
        raise Heard

    def wait() -> None:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 40e-6))
        readable([ours], 5)

    chance = random.Random(1)
    ours, theirs = socket.socketpair()
    before = signal.signal(signal.SIGALRM, hear)
    try:
        with ours, theirs:
            for _ in range(4000):
                began_s = time.monotonic()
                with pytest.raises(Heard):
                    wait()
                assert time.monotonic() - began_s < 4
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_counted_interrupt_ends_the_wait_for_it() -> None:
    with Interrupts() as interrupts:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        assert readable([interrupts.fileno()], 10) == [interrupts.fileno()]
        assert interrupts.take() == 1
        timer.join()


def test_a_signal_that_means_nothing_does_not_end_the_wait() -> None:
    ours, theirs = socket.socketpair()
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    try:
        with ours, theirs:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            began_s = time.monotonic()
            assert readable([ours], 0.3) == []
            assert time.monotonic() - began_s >= 0.3
            assert heard == [signal.SIGUSR1]
            timer.join()
            theirs.send(b"x")
            assert readable([ours], 10) == [ours]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_thread_waits_without_signals() -> None:
    ours, theirs = socket.socketpair()
    found: list[object] = []
    with ours, theirs:
        thread = threading.Thread(target=lambda: found.extend(readable([ours], 10)))
        thread.start()
        theirs.send(b"x")
        thread.join(10)
    assert found == [ours]
