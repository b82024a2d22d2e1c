from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from nova import notify


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(str(tmp_path / "notify"))
        ears.settimeout(5)
        yield ears


def test_ready_is_said_once_and_the_environment_is_not_passed_on(supervisor: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": supervisor.getsockname(), "WATCHDOG_USEC": "3000000", "OTHER": "1"}
    notifier = notify.Notifier.from_environ(environ)
    assert environ == {"OTHER": "1"}
    assert notifier.watchdog_s == 3.0
    notifier.ready("all\nwell")
    notifier.ready()
    notifier.stopping()
    assert supervisor.recv(1000).decode() == f"READY=1\nSTATUS=all well\nMAINPID={os.getpid()}"
    assert supervisor.recv(1000) == b"STOPPING=1"


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(f"\0nova-test-{os.getpid()}")
        ears.settimeout(5)
        notify.Notifier(f"@nova-test-{os.getpid()}").status("x")
        assert ears.recv(100) == b"STATUS=x"


def test_the_notification_descriptor_gets_one_newline_and_is_closed() -> None:
    reader, writer = os.pipe()
    notifier = notify.Notifier.from_environ({"NOTIFY_FD": str(writer)})
    notifier.ready()
    notifier.ready()
    assert os.read(reader, 100) == b"\n"
    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.parametrize("address", [None, "/does/not/exist", "@nobody-listens-here"])
def test_a_supervisor_that_does_not_listen_is_no_error(address: str | None) -> None:
    notifier = notify.Notifier(address)
    notifier.ready()
    notifier.watchdog()


def test_a_supervisor_that_does_not_read_does_not_block_us(supervisor: socket.socket) -> None:
    notifier = notify.Notifier(supervisor.getsockname())
    for _ in range(2000):
        notifier.status("x" * 1000)


def test_a_watchdog_meant_for_another_process_is_ignored() -> None:
    environ = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    assert notify.Notifier.from_environ(environ).watchdog_s is None
