"""Confirms that wait for the disk while the broker goes on."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nova.broker.broker import Broker
from nova.broker.journal import Journal
from nova.broker.syncer import Syncer

from tests.services.broker.memory import Client, Heard, make_broker

KEPT, FLEETING = {"delivery_mode": 2}, {"delivery_mode": 1}


class Disk:
    """Syncs when it is told to."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.asked: list[list[int]] = []
        broker.syncer = self.asked.append

    def write(self, error: OSError | None = None) -> None:
        """The sync that was asked for ends."""
        for fd in self.asked.pop(0):
            os.fstat(fd)  # it is still open
        self.broker.note_synced(error)
        self.broker.end_turn()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make_broker(Journal(tmp_path / "broker", 4096))
    yield made
    made.close()


@pytest.fixture
def disk(broker: Broker) -> Disk:
    return Disk(broker)


def publisher(broker: Broker) -> Client:
    client = Client(broker)
    client.say("queue.declare", queue="q", durable=1)
    client.say("confirm.select")
    return client


def publish(client: Client, header: dict[str, Any], body: str = "x") -> list[Heard]:
    return client.say("basic.publish", routing_key="q", body=body, header=header)


def ack(tag: int, **flags: int) -> Heard:
    return "basic.ack", {"delivery-tag": tag, **flags}


def nack(tag: int) -> Heard:
    return "basic.nack", {"delivery-tag": tag}


def test_a_kept_message_is_confirmed_when_the_disk_has_it_and_others_go_on(broker: Broker, disk: Disk) -> None:
    patient, quick = publisher(broker), publisher(broker)
    assert publish(patient, KEPT) == []
    assert publish(quick, FLEETING) == [ack(1)]
    assert quick.say("basic.get", queue="q", no_ack=1)[0][1]["body"] == "x"
    disk.write()
    assert patient.hear() == [ack(1)]
    assert disk.asked == []


def test_one_sync_serves_all_that_came_before_it_began_and_none_that_came_after(
    broker: Broker, disk: Disk
) -> None:
    first, second = publisher(broker), publisher(broker)
    publish(first, KEPT)
    publish(second, KEPT)
    publish(second, KEPT)
    publish(first, KEPT)
    assert len(disk.asked) == 1
    disk.write()
    assert (first.hear(), second.hear()) == ([ack(1)], [])
    assert len(disk.asked) == 1
    disk.write()
    assert (first.hear(), second.hear()) == ([ack(2)], [ack(2, multiple=1)])


def test_confirms_of_a_channel_leave_in_order(broker: Broker, disk: Disk) -> None:
    client = publisher(broker)
    publish(client, KEPT)
    assert publish(client, FLEETING) == []
    disk.write()
    assert client.hear() == [ack(1)]
    disk.write()
    assert client.hear() == [ack(2)]
    assert publish(client, FLEETING) == [ack(3)]


def test_what_comes_in_the_turn_in_which_a_sync_ends_waits_for_the_next(broker: Broker, disk: Disk) -> None:
    client = publisher(broker)
    publish(client, KEPT)
    client.connection.feed(_publication(client))
    broker.note_synced(None)
    broker.end_turn()
    assert client.hear() == [ack(1)]
    disk.asked.pop(0)
    disk.write()
    assert client.hear() == [ack(2)]


def _publication(client: Client) -> bytes:
    """The bytes of a kept message."""
    sent: list[bytes] = []
    feed, client.feed = client.feed, sent.append  # type: ignore[method-assign]
    publish(client, KEPT)
    client.feed = feed  # type: ignore[method-assign]
    return b"".join(sent)


def test_a_disk_that_fails_refuses_and_is_tried_again(broker: Broker, disk: Disk) -> None:
    client = publisher(broker)
    publish(client, KEPT)
    disk.write(OSError(errno.EIO, "Input/output error"))
    assert client.hear() == [nack(1)]
    assert broker.journal_fault == "Input/output error"
    broker.now_s += 2
    broker.run_due()
    broker.end_turn()
    assert broker.journal_fault is None
    publish(client, KEPT)
    disk.write()
    assert client.hear() == [ack(2)]


def test_a_channel_that_ends_while_it_waits_costs_nothing(broker: Broker, disk: Disk) -> None:
    client, other = publisher(broker), publisher(broker)
    publish(client, KEPT)
    publish(other, KEPT)
    client.connection.lost()
    broker.end_turn()
    disk.write()
    disk.write()
    assert other.hear() == [ack(1)]


def test_files_stay_open_while_they_are_synced_and_go_afterwards(broker: Broker, disk: Disk) -> None:
    client = publisher(broker)
    for _ in range(100):
        publish(client, KEPT, body="x" * 100)
    disk.write()
    for _ in range(100):
        client.say("basic.get", queue="q", no_ack=1)
    (fds,) = disk.asked
    assert len(fds) > 1
    disk.write()
    assert broker.journal is not None
    assert broker.journal.size_bytes < 8192


def test_a_syncer_says_when_the_files_are_synced_and_why_not(tmp_path: Path) -> None:
    ended: list[OSError | None] = []
    reader, writer = os.pipe()
    with (tmp_path / "file").open("wb") as file:
        syncer = Syncer(ended.append)
        for fds in ([file.fileno()], [writer]):
            syncer.begin(fds)
            assert select.select([syncer.fileno()], [], [], 10)[0]
            syncer.collect()
        syncer.begin([file.fileno()])
        syncer.close()
    os.close(reader)
    os.close(writer)
    assert (ended[0], ended[2]) == (None, None)
    assert ended[1] is not None
    assert ended[1].errno == errno.EINVAL


def test_a_syncer_without_threads_syncs_nevertheless(tmp_path: Path) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    ended: list[OSError | None] = []
    with (tmp_path / "file").open("wb") as file:
        syncer = Syncer(ended.append, start)
        syncer.begin([file.fileno()])
        syncer.close()
    assert ended == [None]
