"""A client and a clock for a broker without sockets: what a test says is answered before the next line."""

from __future__ import annotations

from typing import Any

from nova.broker import properties, protocol, table
from nova.broker.broker import Broker, Settings
from nova.broker.connection import Connection
from nova.broker.journal import Journal

from tests.services.broker.transcript import BY_NAME, WITH_CONTENT, decode, encode

Heard = tuple[str, dict[str, Any]]


def make_broker(journal: Journal | None = None, wall_s: float = 1e9, **settings: Any) -> Broker:
    chosen = Settings(**{"is_strict": False, **settings})
    return Broker({"nova": "secret"}, settings=chosen, journal=journal, now_s=100.0, wall_s=lambda: wall_s)


def advance(broker: Broker, seconds: float) -> None:
    """Lets time pass, doing all that becomes due at its moment."""
    end_s = broker.now_s + seconds
    while True:
        due_s = broker.next_deadline_s()
        if due_s is None or due_s > end_s:
            break
        broker.now_s = max(broker.now_s, due_s)
        broker.run_due()
        broker.end_turn()
    broker.now_s = end_s


class Client:
    """Channel 1 is open. `say` returns what has been heard since; content is in `body` and `header`."""

    def __init__(self, broker: Broker, heartbeat: int = 0, capabilities: dict[str, bool] | None = None) -> None:
        self.broker = broker
        self.connection = Connection(broker, "memory")
        self._splitter = protocol.FrameSplitter()
        self._method: Heard | None = None
        self.feed(protocol.PROTOCOL_HEADER)
        given = (
            {"consumer_cancel_notify": True, "connection.blocked": True} if capabilities is None else capabilities
        )
        login = table.encode({"capabilities": given}) + protocol.shortstr("PLAIN")
        login += protocol.longstr(b"\0nova\0secret") + protocol.shortstr("en_US")
        self.feed(protocol.method(0, protocol.CONNECTION_START_OK, login))
        tune = protocol.U16.pack(2047) + protocol.U32.pack(protocol.FRAME_MAX) + protocol.U16.pack(heartbeat)
        self.feed(protocol.method(0, protocol.CONNECTION_TUNE_OK, tune))
        self.feed(protocol.method(0, protocol.CONNECTION_OPEN, protocol.shortstr("/") + b"\0\0"))
        self.say("channel.open")
        self.hear()

    def feed(self, data: bytes) -> None:
        self.connection.feed(data)
        self.broker.end_turn()

    def say(self, name: str, channel: int = 1, **arguments: Any) -> list[Heard]:
        """Sends a method; underscores in arguments stand for hyphens."""
        body, header = arguments.pop("body", None), arguments.pop("header", {})
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        payload = encode(BY_NAME[name], given)
        if name == "basic.publish":
            raw = (body or "").encode()
            self.feed(
                protocol.content(channel, payload, properties.encode(len(raw), header), raw, protocol.FRAME_MAX)
            )
        else:
            self.feed(protocol.frame(protocol.METHOD, channel, payload))
        return self.hear()

    def take(self) -> bytes:
        """All that the broker has sent, as a socket that takes everything."""
        data = self.connection.output.take()
        self.connection.output.note_sent(len(data))
        return data

    def hear(self) -> list[Heard]:
        """What the broker has said since the last call."""
        heard: list[Heard] = []
        for kind, _, payload in self._splitter.feed(self.take().removeprefix(b"")):
            if kind == protocol.METHOD:
                name, values = decode(payload)
                heard.append((name, values))
                self._method = heard[-1] if name in WITH_CONTENT else None
            elif kind == protocol.HEADER and self._method is not None:
                self._method[1].update(header=properties.decode(payload), body="")
            elif kind == protocol.BODY and self._method is not None:
                self._method[1]["body"] += payload.decode()
            elif kind == protocol.HEARTBEAT:
                heard.append(("heartbeat", {}))
        return heard

    def bodies(self) -> list[str]:
        """The bodies of what has been delivered since the last call."""
        return [values["body"] for name, values in self.hear() if name == "basic.deliver"]
