"""The journal: what it kept comes back, whatever happened to its files, and it does not grow with what is gone."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nova.broker import segment
from nova.broker.errors import JournalError
from nova.broker.journal import Journal

from tests.services.broker.memory import Client, advance, make_broker

PERSISTENT = {"delivery_mode": 2}


class House:
    """A folder in which brokers follow one another; `crash` leaves the files as a killed broker leaves them."""

    def __init__(self, folder: Path, segment_bytes: int = 4096) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.open()

    def open(self, wall_s: float = 1e9, **given: Any) -> Client:
        self.journal = Journal(self.folder, self.segment_bytes)
        self.broker = make_broker(self.journal, wall_s, **given)
        self.client = Client(self.broker)
        return self.client

    def crash(self) -> None:
        """What was flushed is in the files; closing descriptors adds nothing."""
        self.journal.close()

    def again(self, **given: Any) -> Client:
        self.crash()
        return self.open(**given)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("messages.*"))

    def bodies(self, queue: str = "q") -> list[str]:
        return [message.body.decode() for message in self.broker.vhosts["/"].queues[queue].backlog]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "broker")
    yield made
    made.crash()


def fill(client: Client, count: int, queue: str = "q", size: int = 100) -> None:
    client.say("queue.declare", queue=queue, durable=1)
    for number in range(count):
        client.say("basic.publish", routing_key=queue, body=f"{number:{size}}", header=PERSISTENT)


def test_definitions_come_back_without_what_was_deleted(house: House) -> None:
    client = house.client
    arguments = {"x-max-priority": 3, "x-message-ttl": 5000, "x-dead-letter-exchange": "dlx"}
    client.say(
        "exchange.declare", exchange="x", type="headers", durable=1, arguments={"alternate-exchange": "other"}
    )
    client.say("exchange.declare", exchange="y", type="fanout", durable=1, internal=1, auto_delete=1)
    client.say("exchange.declare", exchange="transient", type="fanout")
    client.say("queue.declare", queue="q", durable=1, arguments=arguments)
    client.say("queue.declare", queue="gone", durable=1)
    client.say("queue.declare", queue="transient")
    client.say("queue.bind", queue="q", exchange="x", arguments={"a": 1, "b": b"\xff", "x-match": "any"})
    client.say("queue.bind", queue="q", exchange="transient")
    client.say("exchange.bind", source="x", destination="y", routing_key="k")
    client.say("queue.bind", queue="gone", exchange="x")
    client.say("queue.bind", queue="q", exchange="x", routing_key="unbound")
    client.say("queue.unbind", queue="q", exchange="x", routing_key="unbound")
    client.say("queue.delete", queue="gone")
    house.again()
    vhost = house.broker.vhosts["/"]
    assert list(vhost.queues) == ["q"]
    assert vhost.queues["q"].arguments.raw == arguments
    assert {name for name in vhost.exchanges if not name.startswith("amq.")} == {"x", "y"}
    x, y = vhost.exchanges["x"], vhost.exchanges["y"]
    assert (x.type, x.alternate, y.internal, y.auto_delete) == ("headers", "other", True, True)
    bindings = {(each.destination.name, each.routing_key): each.arguments for each in x.bindings.values()}
    assert bindings == {("q", ""): {"a": 1, "b": b"\xff", "x-match": "any"}, ("y", "k"): {}}
    house.client.say("queue.delete", queue="q")
    house.again()
    assert house.broker.vhosts["/"].queues == {}


def test_messages_come_back_with_their_flags_and_their_time(house: House) -> None:
    client = house.client
    client.say("queue.declare", queue="q", durable=1)
    client.say("basic.publish", routing_key="q", body="short", header={**PERSISTENT, "expiration": "5000"})
    client.say("basic.publish", routing_key="q", body="seen", header=PERSISTENT)
    client.say("basic.publish", routing_key="q", body="long", header={**PERSISTENT, "expiration": "60000"})
    client.say("basic.publish", routing_key="q", body="transient")
    client.say("basic.get", queue="q")
    client.say("basic.get", queue="q")
    client.say("basic.nack", delivery_tag=2, multiple=1, requeue=1)
    house.again(wall_s=1e9 + 10)
    assert house.bodies() == ["seen", "long"]
    assert [message.redelivered for message in house.broker.vhosts["/"].queues["q"].backlog] == [True, False]
    advance(house.broker, 49)
    house.client.say("basic.get", queue="q", no_ack=1)
    assert house.bodies() == ["long"]
    advance(house.broker, 2)
    assert house.bodies() == []


def test_a_message_is_dead_lettered_once_across_a_crash(house: House) -> None:
    client = house.client
    client.say("queue.declare", queue="dead", durable=1)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.say("queue.declare", queue="q", durable=1, arguments=arguments)
    client.say("basic.publish", routing_key="q", body="x", header=PERSISTENT)
    client.say("basic.get", queue="q")
    client.say("basic.reject", delivery_tag=1)
    house.again()
    assert (house.bodies(), house.bodies("dead")) == ([], ["x"])


def test_numbers_go_on_after_a_crash_so_that_order_holds(house: House) -> None:
    fill(house.client, 3)
    client = house.again()
    client.say("basic.get", queue="q")
    client.say("basic.publish", routing_key="q", body="new", header=PERSISTENT)
    client.say("basic.reject", delivery_tag=1, requeue=1)
    assert [body.strip() for body in house.bodies()] == ["0", "1", "2", "new"]


def test_files_of_settled_messages_are_deleted(house: House) -> None:
    fill(house.client, 200)
    assert len(house.files()) > 5
    for tag in range(1, 201):
        house.client.say("basic.get", queue="q")
        house.client.say("basic.ack", delivery_tag=tag)
    assert len(house.files()) == 1
    house.again()
    assert house.bodies() == []


def test_files_that_are_mostly_dead_are_compacted_while_running(house: House) -> None:
    fill(house.client, 800)
    full = house.journal.size_bytes
    for tag in range(1, 801):
        house.client.say("basic.get", queue="q")
        if tag % 10:
            house.client.say("basic.ack", delivery_tag=tag)
    assert house.journal.size_bytes < full / 3
    house.client.connection.lost()
    house.broker.end_turn()
    house.again()
    assert [int(body) for body in house.bodies()] == list(range(9, 800, 10))
    assert all(message.redelivered for message in house.broker.vhosts["/"].queues["q"].backlog)


def test_the_youngest_files_are_left_to_empty_by_themselves(house: House) -> None:
    fill(house.client, 60)
    files = house.files()
    assert len(files) == 3
    for tag in range(1, 61):
        house.client.say("basic.get", queue="q")
        if tag % 10:
            house.client.say("basic.ack", delivery_tag=tag)
    sizes = [path.stat().st_size for path in files]
    assert min(sizes[:2]) >= house.segment_bytes
    house.client.say("basic.ack", delivery_tag=0, multiple=1)
    assert house.files() == files[2:]


def test_definitions_do_not_grow_with_what_is_gone(house: House) -> None:
    for _ in range(700):
        house.client.say("queue.declare", queue="q", durable=1)
        house.client.say("queue.bind", queue="q", exchange="amq.fanout")
        house.client.say("queue.delete", queue="q")
    house.client.say("queue.declare", queue="last", durable=1)
    assert (house.folder / "definitions").stat().st_size < 200_000
    house.again()
    assert list(house.broker.vhosts["/"].queues) == ["last"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_torn_tail_costs_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    house = House(tmp_path_factory.mktemp("torn") / "broker", segment_bytes=1 << 20)
    fill(house.client, 10)
    house.client.say("basic.get", queue="q")
    house.client.say("basic.ack", delivery_tag=1)
    house.crash()
    (path,) = house.files()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 40, b"\xff" * 7, whole[:50]]))
    path.write_bytes(whole[:cut] + (tail if cut < len(whole) else b""))
    ends = [end for kind, _, end in segment.records(whole) if kind == segment.PUBLISHED]
    is_acked = cut >= len(whole)
    kept = sum(end <= cut for end in ends)
    house.open()
    assert [int(body) for body in house.bodies()] == list(range(1 if is_acked else 0, kept))
    # What is written behind the tear is found again.
    house.client.say("basic.publish", routing_key="q", body="99", header=PERSISTENT)
    house.again()
    assert house.bodies()[-1] == "99"
    assert len(house.bodies()) == max(0, kept - is_acked) + 1
    house.crash()


def test_a_torn_definition_costs_only_itself(house: House) -> None:
    house.client.say("queue.declare", queue="kept", durable=1)
    house.client.say("queue.declare", queue="torn", durable=1)
    house.crash()
    path = house.folder / "definitions"
    path.write_bytes(path.read_bytes()[:-5])
    house.open()
    assert list(house.broker.vhosts["/"].queues) == ["kept"]
    house.client.say("queue.declare", queue="new", durable=1)
    house.again()
    assert list(house.broker.vhosts["/"].queues) == ["kept", "new"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_what_a_crash_leaves_is_what_was_there(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    house = House(tmp_path_factory.mktemp("history") / "broker", segment_bytes=2000)
    expected: list[str] = []
    held: dict[int, str] = {}
    house.client.say("queue.declare", queue="q", durable=1)
    for step in range(150):
        what = chance.random()
        if what < 0.45:
            house.client.say("basic.publish", routing_key="q", body=f"{step:60}", header=PERSISTENT)
            expected.append(f"{step:60}")
        elif what < 0.75 and expected:
            ((_, got),) = house.client.say("basic.get", queue="q")
            assert got["body"] == expected[0]
            held[got["delivery-tag"]] = expected.pop(0)
        elif what < 0.9 and held:
            tag = chance.choice(list(held))
            del held[tag]
            house.client.say("basic.ack", delivery_tag=tag)
        elif what < 0.96 and held:
            tag = chance.choice(list(held))
            expected = sorted([*expected, held.pop(tag)])
            house.client.say("basic.reject", delivery_tag=tag, requeue=1)
        elif what > 0.98:
            expected, held = sorted([*expected, *held.values()]), {}
            house.again()
            assert house.bodies() == expected
    house.crash()


# A disk that is full, or fails.


def test_a_full_journal_refuses_persistent_messages_and_says_so(house: House) -> None:
    house.crash()
    client = house.open(disk_limit_bytes=5000)
    fill(client, 60)
    ready = house.broker.vhosts["/"].queues["q"].ready
    assert ready < 60
    heard = client.say("basic.publish", routing_key="q", body="x", header=PERSISTENT)
    if not heard:  # the channel was closed by an earlier one
        client = Client(house.broker)
        heard = client.say("basic.publish", routing_key="q", body="x", header=PERSISTENT)
    assert heard[0][1]["reply-code"] == 506
    confirming = Client(house.broker)
    confirming.say("confirm.select")
    assert confirming.say("basic.publish", routing_key="q", body="x", header=PERSISTENT)[0][0] == "basic.nack"
    assert confirming.say("basic.publish", routing_key="q", body="transient")[0][0] == "basic.ack"
    confirming.say("queue.purge", queue="q")
    assert confirming.say("basic.publish", routing_key="q", body="x", header=PERSISTENT)[0][0] == "basic.ack"


class FailingDisk:
    """Stands in for `os.write` of the segments; fails while `is_full`, after writing half."""

    def __init__(self) -> None:
        self.is_full = False
        self._write: Callable[[int, Any], int] = os.write

    def __call__(self, fd: int, data: Any) -> int:
        if self.is_full:
            self._write(fd, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(fd, data)


def test_what_could_not_be_written_is_not_confirmed_and_nothing_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk()
    monkeypatch.setattr(segment, "os", type("Os", (), {**vars(os), "write": staticmethod(disk)}))
    client = house.client
    client.say("queue.declare", queue="q", durable=1)
    client.say("confirm.select")
    assert client.say("basic.publish", routing_key="q", body="before", header=PERSISTENT)[0][0] == "basic.ack"
    disk.is_full = True
    assert client.say("basic.publish", routing_key="q", body="during", header=PERSISTENT)[0][0] == "basic.nack"
    assert client.say("basic.publish", routing_key="q", body="still", header=PERSISTENT)[0][0] == "basic.nack"
    disk.is_full = False
    advance(house.broker, 2)
    assert client.say("basic.publish", routing_key="q", body="after", header=PERSISTENT)[0][0] == "basic.ack"
    house.again()
    assert house.bodies() == ["before", "during", "after"]


def test_a_second_journal_in_the_same_folder_is_refused(house: House) -> None:
    with pytest.raises(JournalError, match="another nova-broker uses it"):
        Journal(house.folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file/broker"):
        Journal(tmp_path / "file" / "broker")
