"""Conversations with an AMQP broker as text: read, played against any broker, and written with its answers.

    # what this shows
    a1 > queue.declare queue=~q exclusive=1 arguments={"x-message-ttl": 1000}
    a1 < queue.declare-ok queue=~q message-count=0 consumer-count=0

`a1` is channel 1 of connection `a`; both open at their first use. A line with `>` is sent: a method, for
basic.publish with `body=` (as often as `times=` says) and properties in `header={...}`. A synchronous method is
followed by what arrives up to its answer; `a1 ? 2` waits for two more methods. A name `~q` belongs to the
conversation: it is made unique, so that any number of conversations may use one broker. Other
lines sent:

    a + {"vhost": "/", "heartbeat": 0, ...}   connects (only needed for something other than the default)
    a1 ! 0100...                              raw bytes in hexadecimal
    a1 counts ~q 2                            waits until the queue has so many messages
    a1 confirms 3                             waits until so many publications are confirmed, and sums them up
    a ends                                    waits for the end of the connection; heartbeats on the way do not count
    a -                                       closes the socket without a word

What differs between two runs is made equal: generated names, reply addresses, times. `$reply` stands for the
reply-to of the message that arrived last. To record the answers of a real RabbitMQ into the files:

    python -m tests.services.broker.transcript tests/services/broker/transcripts/*.txt
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nova.broker import properties, protocol, table
from nova.broker.protocol import Arguments

DEADLINE_S = 10.0
COUNT_DEADLINE_S = 2.0
RABBITMQ = ("127.0.0.1", 5672, "guest", "guest")

# Method -> its number and its arguments as NAME:TYPE; bits that share an octet are joined by commas.
METHODS = """
connection.start 10 10 version-major:octet version-minor:octet server-properties:table mechanisms:longstr locales:longstr
connection.tune 10 30 channel-max:short frame-max:long heartbeat:short
connection.open-ok 10 41 known-hosts:shortstr
connection.close 10 50 reply-code:short reply-text:shortstr class-id:short method-id:short
connection.close-ok 10 51
connection.blocked 10 60 reason:shortstr
connection.unblocked 10 61
channel.open 20 10 out-of-band:shortstr
channel.open-ok 20 11 channel-id:longstr
channel.flow 20 20 active:bits
channel.flow-ok 20 21 active:bits
channel.close 20 40 reply-code:short reply-text:shortstr class-id:short method-id:short
channel.close-ok 20 41
exchange.declare 40 10 reserved:short exchange:shortstr type:shortstr passive,durable,auto-delete,internal,no-wait:bits arguments:table
exchange.declare-ok 40 11
exchange.delete 40 20 reserved:short exchange:shortstr if-unused,no-wait:bits
exchange.delete-ok 40 21
exchange.bind 40 30 reserved:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bits arguments:table
exchange.bind-ok 40 31
exchange.unbind 40 40 reserved:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bits arguments:table
exchange.unbind-ok 40 51
queue.declare 50 10 reserved:short queue:shortstr passive,durable,exclusive,auto-delete,no-wait:bits arguments:table
queue.declare-ok 50 11 queue:shortstr message-count:long consumer-count:long
queue.bind 50 20 reserved:short queue:shortstr exchange:shortstr routing-key:shortstr no-wait:bits arguments:table
queue.bind-ok 50 21
queue.purge 50 30 reserved:short queue:shortstr no-wait:bits
queue.purge-ok 50 31 message-count:long
queue.delete 50 40 reserved:short queue:shortstr if-unused,if-empty,no-wait:bits
queue.delete-ok 50 41 message-count:long
queue.unbind 50 50 reserved:short queue:shortstr exchange:shortstr routing-key:shortstr arguments:table
queue.unbind-ok 50 51
basic.qos 60 10 prefetch-size:long prefetch-count:short global:bits
basic.qos-ok 60 11
basic.consume 60 20 reserved:short queue:shortstr consumer-tag:shortstr no-local,no-ack,exclusive,no-wait:bits arguments:table
basic.consume-ok 60 21 consumer-tag:shortstr
basic.cancel 60 30 consumer-tag:shortstr no-wait:bits
basic.cancel-ok 60 31 consumer-tag:shortstr
basic.publish 60 40 reserved:short exchange:shortstr routing-key:shortstr mandatory,immediate:bits
basic.return 60 50 reply-code:short reply-text:shortstr exchange:shortstr routing-key:shortstr
basic.deliver 60 60 consumer-tag:shortstr delivery-tag:longlong redelivered:bits exchange:shortstr routing-key:shortstr
basic.get 60 70 reserved:short queue:shortstr no-ack:bits
basic.get-ok 60 71 delivery-tag:longlong redelivered:bits exchange:shortstr routing-key:shortstr message-count:long
basic.get-empty 60 72 cluster-id:shortstr
basic.ack 60 80 delivery-tag:longlong multiple:bits
basic.reject 60 90 delivery-tag:longlong requeue:bits
basic.recover-async 60 100 requeue:bits
basic.recover 60 110 requeue:bits
basic.recover-ok 60 111
basic.nack 60 120 delivery-tag:longlong multiple,requeue:bits
confirm.select 85 10 no-wait:bits
confirm.select-ok 85 11
"""  # noqa: E501
WITH_CONTENT = ("basic.publish", "basic.return", "basic.deliver", "basic.get-ok")
ANSWERS = {"basic.get": ("basic.get-ok", "basic.get-empty")}
UNANSWERED = ("basic.publish", "basic.ack", "basic.nack", "basic.reject", "basic.recover-async")


@dataclass(frozen=True)
class Method:
    name: str
    number: int
    fields: tuple[tuple[tuple[str, ...], str], ...]


def _methods() -> Iterator[Method]:
    for line in METHODS.strip().splitlines():
        name, klass, number, *fields = line.split()
        pairs = [field.rsplit(":", 1) for field in fields]
        yield Method(
            name, int(klass) << 16 | int(number), tuple((tuple(names.split(",")), kind) for names, kind in pairs)
        )


BY_NAME = {method.name: method for method in _methods()}
BY_NUMBER = {method.number: method for method in BY_NAME.values()}
_WRITERS = {
    "octet": lambda value: bytes((value,)),
    "short": protocol.U16.pack,
    "long": protocol.U32.pack,
    "longlong": protocol.U64.pack,
    "shortstr": protocol.shortstr,
    "longstr": lambda value: protocol.longstr(value.encode()),
    "table": table.encode,
}
_PROTOCOL_HEADER = -1  # in the place of a frame's type
_EMPTY = {"shortstr": "", "longstr": "", "table": {}}


def encode(method: Method, given: dict[str, Any]) -> bytes:
    """The payload of a method frame."""
    parts = [protocol.U32.pack(method.number)]
    for names, kind in method.fields:
        if kind == "bits":
            parts.append(bytes((sum(bool(given.pop(name, 0)) << bit for bit, name in enumerate(names)),)))
        else:
            parts.append(_WRITERS[kind](given.pop(names[0], _EMPTY.get(kind, 0))))
    assert not given, f"{method.name} has no {given}"
    return b"".join(parts)


def decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Name and arguments; what is 0 or empty is left out."""
    method = BY_NUMBER[protocol.U32.unpack_from(payload)[0]]
    reader, values = Arguments(payload), {}
    for names, kind in method.fields:
        if kind == "bits":
            octet = reader.octet()
            values |= {name: octet >> bit & 1 for bit, name in enumerate(names)}
        else:
            value = getattr(reader, kind)()
            values[names[0]] = value.decode() if isinstance(value, bytes) else value
    return method.name, {name: value for name, value in values.items() if value not in (0, "", {})}


class Conversation:
    """One broker, any number of connections; `lines` is what was said and heard."""

    def __init__(self, address: tuple[str, int, str, str]) -> None:
        self.address = address
        self.lines: list[str] = []
        self._mark = f"t{os.urandom(4).hex()}."
        self._links: dict[str, Link] = {}
        self._reply = ""

    def close(self) -> None:
        for link in self._links.values():
            link.socket.close()

    def play(self, line: str) -> None:
        """Does what a line says and records it with what is heard."""
        self.lines.append(line)
        who, action, *rest = line.split(" ", 2)
        what = self._unique(rest[0]) if rest else ""
        name, number = who.rstrip("0123456789"), int(who[len(who.rstrip("0123456789")) :] or 0)
        if action == "+":
            self._connect(name, json.loads(what))
            return
        link = self._links.get(name) or self._connect(name, {})
        if action == "-":
            link.socket.close()
        elif action == "!":
            link.socket.sendall(bytes.fromhex(what))
        elif action == "?":
            for _ in range(int(what)):
                self._hear(who, link)
        elif action == "counts":
            self._open(link, number)
            self._counts(who, link, number, *what.split())
        elif action == "confirms":
            self._confirms(who, link, int(what))
        elif action == "ends":
            while (heard := link.hear()[1:])[0] == "heartbeat":
                pass
            self._note(who, *heard)
        else:
            assert action == ">", line
            self._open(link, number)
            self._send(who, link, number, what)

    def _connect(self, name: str, options: dict[str, Any]) -> Link:
        link = self._links[name] = Link(self.address)
        if not options.get("raw"):
            for heard in link.log_in(*self.address[2:], options):
                self._note(name, *heard)
        return link

    def _open(self, link: Link, number: int) -> None:
        if number and number not in link.opened:
            link.opened.add(number)
            link.send(number, encode(BY_NAME["channel.open"], {}))
            assert link.hear()[1] == "channel.open-ok"

    def _send(self, who: str, link: Link, number: int, what: str) -> None:
        name, _, text = what.partition(" ")
        given = {key: _value(key, raw) for key, raw in _pairs(text)}
        body, header = given.pop("body", "").encode() * given.pop("times", 1), given.pop("header", {})
        payload = encode(BY_NAME[name], given)
        if name in WITH_CONTENT:
            encoded = properties.encode(len(body), {key.replace("-", "_"): v for key, v in header.items()})
            link.socket.sendall(protocol.content(number, payload, encoded, body, link.frame_max))
        else:
            link.send(number, payload)
        if name.endswith("close-ok") or name == "channel.close":
            link.opened.discard(number)
        if name.endswith("-ok") or name in UNANSWERED or given.get("no-wait") or "no-wait=1" in text:
            return
        while True:
            heard = self._hear(who, link)
            if heard in (*ANSWERS.get(name, (f"{name}-ok",)), "channel.close", "connection.close", "EOF"):
                return

    def _hear(self, who: str, link: Link) -> str:
        number, name, values, message = link.hear()
        if name == "channel.close":
            link.send(number, encode(BY_NAME["channel.close-ok"], {}))
            link.opened.discard(number)
        elif name == "connection.close":
            link.send(0, encode(BY_NAME["connection.close-ok"], {}))
        expected = int(who[len(who.rstrip("0123456789")) :] or 0)
        self._note(
            who if number == expected else f"{who.rstrip('0123456789')}{number or ''}", name, values, message
        )
        return name

    def _confirms(self, who: str, link: Link, count: int) -> None:
        tags: dict[int, str] = {}
        last = 0
        while len(tags) < count:
            _, name, values, message = link.hear()
            if name not in ("basic.ack", "basic.nack"):
                self._note(who, name, values, message)
                assert name not in ("channel.close", "connection.close", "EOF"), "confirms are awaited"
                continue
            tag = values["delivery-tag"]
            first = min(tags, default=link.confirmed) + 1 if not tags else link.confirmed + 1
            for each in range(first if values.get("multiple") else tag, tag + 1):
                tags.setdefault(each, name.removeprefix("basic."))
            last = max(last, tag)
        link.confirmed = last
        self.lines.append(f"{who} < confirmed " + " ".join(tags[tag] for tag in sorted(tags)))

    def _counts(self, who: str, link: Link, number: int, queue: str, expected: str) -> None:
        """RabbitMQ's queues count a moment later than its channels answer."""
        deadline_s, count = time.monotonic() + COUNT_DEADLINE_S, -1
        while count != int(expected) and time.monotonic() < deadline_s:
            link.send(number, encode(BY_NAME["queue.declare"], {"queue": queue, "passive": 1}))
            name, values = link.hear()[1:3]
            count = values.get("message-count", 0) if name == "queue.declare-ok" else -1
        self._note(who, "counted", {"message-count": count}, None)

    def _note(self, who: str, name: str, values: dict[str, Any], message: dict[str, Any] | None) -> None:
        text = " ".join([name, *(f"{key}={_text(value)}" for key, value in values.items())])
        if message is not None:
            self._reply = message["header"].get("reply-to", self._reply)
            text += f" header={_text(message['header'])} body={_text(message['body'])}"
        self.lines.append(f"{who} < {self._equal(text)}")

    def _unique(self, text: str) -> str:
        return text.replace("$reply", self._reply).replace("~", self._mark)

    def _equal(self, text: str) -> str:
        text = text.replace(self._mark, "~")
        text = re.sub(r"amq\.(gen|ctag)-[A-Za-z0-9_-]+", r"amq.\1-*", text)
        text = re.sub(r"(amq\.rabbitmq\.reply-to\.)[A-Za-z0-9_.=+/-]+", r"\1*", text)
        return re.sub(r'"time": \d+', '"time": "*"', text)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r'([a-z-]+)=("(?:[^"\\]|\\.)*"|\{.*?\}(?= [a-z-]+=|$)|[^ ]*)', text):
        yield match[1], match[2] or '""'


def _value(key: str, raw: str) -> Any:
    return json.loads(raw) if raw[0] in '"{' or (raw.isdigit() and key != "body") else raw


def _text(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z~#*.$_-][\w~#*.$/+=-]*", value):
        return value
    return json.dumps(value, default=str, sort_keys=True)


class Link:
    """A socket that speaks frames."""

    def __init__(self, address: tuple[str, int, str, str]) -> None:
        self.socket = socket.create_connection(address[:2], timeout=DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened: set[int] = set()
        self.confirmed = 0
        self.frame_max = protocol.FRAME_MAX
        self._splitter = protocol.FrameSplitter()
        self._frames: list[protocol.Frame] = []

    def send(self, number: int, payload: bytes) -> None:
        self.socket.sendall(protocol.frame(protocol.METHOD, number, payload))

    def log_in(self, user: str, password: str, options: dict[str, Any]) -> Iterator[tuple[str, dict, None]]:
        """Yields what ends the attempt, where it fails."""
        self.socket.sendall(protocol.PROTOCOL_HEADER)
        self.hear()
        capabilities = {"consumer_cancel_notify": True, "authentication_failure_close": True}
        mechanism = options.get("mechanism", "PLAIN")
        name_and_password = options.get("user", user), options.get("password", password)
        self.socket.sendall(
            protocol.method(
                0,
                protocol.CONNECTION_START_OK,
                table.encode({"capabilities": options.get("capabilities", capabilities)})
                + protocol.shortstr(mechanism)
                + protocol.longstr(_login(mechanism, *name_and_password))
                + protocol.shortstr("en_US"),
            )
        )
        _, name, values, _ = self.hear()
        if name != "connection.tune":
            yield name, values, None
            return
        self.frame_max = options.get("frame_max", protocol.FRAME_MAX)
        limits = protocol.U16.pack(options.get("channel_max", 2047)) + protocol.U32.pack(self.frame_max)
        tune = limits + protocol.U16.pack(options.get("heartbeat", 0))
        self.socket.sendall(protocol.method(0, protocol.CONNECTION_TUNE_OK, tune))
        opening = protocol.shortstr(options.get("vhost", "/")) + b"\0\0"
        self.socket.sendall(protocol.method(0, protocol.CONNECTION_OPEN, opening))
        _, name, values, _ = self.hear()
        if name != "connection.open-ok":
            yield name, values, None

    def hear(self) -> tuple[int, str, dict[str, Any], dict[str, Any] | None]:
        """The next method with its channel, arguments and message."""
        kind, number, payload = self._frame()
        if kind == 0:
            return number, "EOF", {}, None
        if kind == _PROTOCOL_HEADER:
            return number, "protocol-header", {}, None
        if kind == protocol.HEARTBEAT:
            return number, "heartbeat", {}, None
        name, values = decode(payload)
        return number, name, values, self._message() if name in WITH_CONTENT else None

    def _message(self) -> dict[str, Any]:
        header = self._frame()[2]
        body, size = b"", properties.body_size(header)
        while len(body) < size:
            body += self._frame()[2]
        given = {name.replace("_", "-"): value for name, value in properties.decode(header).items()}
        return {"header": given, "body": body.decode() if size <= 200 else f"{size} bytes"}

    def _frame(self) -> protocol.Frame:
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._frames:
            assert time.monotonic() < deadline_s, "nothing was heard"
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return 0, 0, b""
            if data == protocol.PROTOCOL_HEADER:
                return _PROTOCOL_HEADER, 0, b""
            self._frames = self._splitter.feed(data)[::-1]
        return self._frames.pop()


def _login(mechanism: str, user: str, password: str) -> bytes:
    if mechanism == "AMQPLAIN":
        return table.encode({"LOGIN": user, "PASSWORD": password})[4:]  # a table without its length
    return f"\0{user}\0{password}".encode()


def scenarios(path: Path) -> dict[str, list[str]]:
    """The lines of each conversation of a file, by its title."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            found[line[2:]] = []
        elif line:
            found[list(found)[-1]].append(line)
    return found


def replay(lines: list[str], address: tuple[str, int, str, str]) -> list[str]:
    """The conversation as this broker leads it."""
    conversation = Conversation(address)
    try:
        for line in lines:
            if not re.match(r"\w+ < ", line):
                conversation.play(line)
    except (AssertionError, TimeoutError) as error:
        conversation.lines.append(f"! {type(error).__name__} {error}")
    finally:
        conversation.close()
    return conversation.lines


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        parts = []
        for title, lines in scenarios(path).items():
            parts.append("\n".join([f"# {title}", *replay(lines, RABBITMQ)]))
        path.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
