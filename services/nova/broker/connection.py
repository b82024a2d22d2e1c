"""A connection: bytes in, bytes out, and everything between the first octet and the last.

Sans I/O. `feed` takes what the socket gave; what must be sent collects in `output` and leaves once per turn, for
which the connection puts itself on `broker.dirty`. Whatever a client sends, `feed` does not raise: a fault becomes
channel.close or connection.close, and after the latter `is_finished` tells the front end to hang up.

The life of a connection is its `stage`: the protocol header, start-ok, tune-ok, open, running, closing (our
connection.close awaits its answer), closed. Source: AMQP 0-9-1 sections 2.2.4 and 4.2; texts from RabbitMQ 3.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nova.broker import login, negotiation, protocol
from nova.broker.channel import Channel
from nova.broker.commands import COMMANDS
from nova.broker.errors import (
    ACCESS_REFUSED,
    CHANNEL_ERROR,
    CLIENT_ERRORS,
    CONNECTION_FORCED,
    FRAME_ERROR,
    INTERNAL_ERROR,
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    UNEXPECTED_FRAME,
    AmqpFault,
    fault_of,
)
from nova.broker.heartbeat import Heartbeat
from nova.broker.output import Output
from nova.broker.protocol import Arguments, MalformedFrame, shortstr
from nova.broker.vhost import VirtualHost

if TYPE_CHECKING:
    from nova.broker.broker import Broker, Deadline
    from nova.broker.queue import Queue

FIRST_FRAME_MAX = 8192  # before tuning; nobody needs more to say who they are
CLOSE_TIMEOUT_S = 5.0  # for the answer to our connection.close
_PUBLISH = protocol.U32.pack(protocol.BASIC_PUBLISH)
_CLOSING = object()  # stands for a channel whose close-ok is awaited

STAGES = ("header", "start", "tune", "open", "running", "closing", "closed")
HEADER, START, TUNE, OPEN, RUNNING, CLOSING, CLOSED = STAGES


class Connection:
    def __init__(self, broker: Broker, peer: str = "") -> None:
        self.broker = broker
        self.peer = peer
        self.stage = HEADER
        self.user = ""
        self.client: dict[str, Any] = {}
        self.vhost: VirtualHost = broker.vhosts["/"]
        self.frame_max = FIRST_FRAME_MAX
        settings = broker.settings
        self._offered = negotiation.Limits(settings.channel_max, protocol.FRAME_MAX, settings.heartbeat_s)
        self.channel_max = settings.channel_max
        self.channels: dict[int, Any] = {}
        self.exclusive_queues: dict[str, Queue] = {}
        self.has_published = False
        self.is_blocked = False  # this publisher has been told to wait
        self.is_paused = False  # and the front end does not read it
        self.is_finished = False  # nothing more will come: send what is left and hang up
        self.is_abandoned = False  # hang up without sending
        self.output = Output(self._on_output, self._on_drained)
        self.send = self.output.add
        self.connected_at_s = broker.now_s
        self.received_bytes = 0
        self._agreed_heartbeat_s = 0
        self._heartbeat: Heartbeat | None = None
        self._splitter = protocol.FrameSplitter(FIRST_FRAME_MAX)
        self._start = b""
        self._deadline: Deadline | None = None
        broker.connections[self] = None
        self._plan(settings.handshake_timeout_s, self._abandon)

    def _on_output(self) -> None:
        self.broker.dirty.append(self)

    def _on_drained(self) -> None:
        self.broker.resume_later(self)

    # Input.

    def feed(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self.stage == HEADER:
            data = self._read_protocol_header(data)
        if self.is_finished:
            return
        try:
            frames = self._splitter.feed(data)
        except MalformedFrame as error:
            self.fail(None, AmqpFault(FRAME_ERROR, str(error)), 0)
            return
        index, count = 0, len(frames)
        while index < count:
            kind, number, payload = frames[index]
            index += 1
            try:
                if payload[:4] == _PUBLISH and self._receive_message(frames, index - 1):
                    index += 2
                    continue
                self._receive(kind, number, payload)
            except CLIENT_ERRORS as error:
                fault = fault_of(error, kind, payload)
                self.fail(self.channels.get(number), fault, fault.method or 0)
            if self.is_finished:
                return

    def _read_protocol_header(self, data: bytes) -> bytes:
        """Returns what follows the header."""
        self._start += data
        size = len(protocol.PROTOCOL_HEADER)
        if self._start[:size] == protocol.PROTOCOL_HEADER:
            rest, self._start = self._start[size:], b""
            self.stage = START
            self._send(protocol.CONNECTION_START, negotiation.start())
            return rest
        if not protocol.PROTOCOL_HEADER.startswith(self._start):
            self.send(protocol.PROTOCOL_HEADER)  # the version that would be understood (section 2.2.4)
            self._release()
            self._finish()
        return b""

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        if not protocol.METHOD <= kind <= protocol.BODY:
            self._receive_special(kind, number, payload)
        elif channel.__class__ is Channel and self.stage == RUNNING:
            self._receive_on_channel(channel, kind, payload)
        elif self.stage == CLOSING:
            if not number and kind == protocol.METHOD:
                self._receive_while_closing(protocol.method_of(kind, payload))
        elif not number:
            if kind != protocol.METHOD:
                raise AmqpFault(UNEXPECTED_FRAME, protocol.describe_frame(kind, payload), 0)
            self._receive_method(payload)
        else:
            self._receive_elsewhere(number, channel, kind, payload)

    def _receive_message(self, frames: list[protocol.Frame], index: int) -> bool:
        """All frames of a publication in one step; False where it comes in another shape, or must not come now."""
        kind, number, payload = frames[index]
        channel = self.channels.get(number)
        if kind != protocol.METHOD or channel.__class__ is not Channel or self.stage != RUNNING:
            return False
        assert isinstance(channel, Channel)
        if channel.is_receiving_content or not protocol.is_whole_message(frames, index):
            return False
        channel.publish_whole(payload, frames[index + 1][2], frames[index + 2][2])
        return True

    def _receive_special(self, kind: int, number: int, payload: bytes) -> None:
        if kind != protocol.HEARTBEAT:
            raise AmqpFault(FRAME_ERROR, f"{protocol.describe_frame(kind, payload)}: unknown_frame", 0)
        if number:
            raise AmqpFault(UNEXPECTED_FRAME, protocol.describe_frame(kind, payload), 0)

    def _receive_on_channel(self, channel: Channel, kind: int, payload: bytes) -> None:
        if channel.is_receiving_content:
            channel.receive_content(kind, payload)
            return
        method = protocol.method_of(kind, payload)
        if method == protocol.BASIC_PUBLISH:
            channel.begin_publish(payload)
            return
        command = COMMANDS.get(method)
        if command is not None:
            command(channel, Arguments(payload))
        elif method == protocol.CHANNEL_CLOSE:
            channel.close()
            del self.channels[channel.number]
            channel.send(protocol.CHANNEL_CLOSE_OK)
        elif method == protocol.CHANNEL_OPEN:
            raise AmqpFault(CHANNEL_ERROR, "second 'channel.open' seen")
        elif kind != protocol.METHOD:
            raise AmqpFault(UNEXPECTED_FRAME, "expected method frame, got non method frame instead", 0)
        elif method not in (protocol.CHANNEL_CLOSE_OK, protocol.CHANNEL_FLOW_OK):
            raise AmqpFault(NOT_IMPLEMENTED, f"method {method >> 16}.{method & 0xFFFF}")

    def _receive_elsewhere(self, number: int, channel: object, kind: int, payload: bytes) -> None:
        """A frame for a channel that is closing, or that is not open."""
        method = protocol.method_of(kind, payload)
        if channel is _CLOSING:
            if method == protocol.CHANNEL_CLOSE_OK:
                del self.channels[number]
            elif method == protocol.CHANNEL_CLOSE:
                self.send(protocol.method(number, protocol.CHANNEL_CLOSE_OK))
            return
        if method != protocol.CHANNEL_OPEN or self.stage != RUNNING:
            raise AmqpFault(CHANNEL_ERROR, "expected 'channel.open'")
        count, limit = len(self.channels), self.channel_max
        if count >= limit:
            text = f"number of channels opened ({count}) has reached the negotiated channel_max ({limit})"
            raise AmqpFault(NOT_ALLOWED, text, 0)
        self.channels[number] = Channel(self, number)
        self.send(protocol.method(number, protocol.CHANNEL_OPEN_OK, protocol.longstr(b"")))

    # The methods of the class connection.

    def _receive_method(self, payload: bytes) -> None:
        method, arguments = protocol.method_of(protocol.METHOD, payload), Arguments(payload)
        if method == protocol.CONNECTION_CLOSE:
            self._release()
            self._send(protocol.CONNECTION_CLOSE_OK)
            self._finish()
        elif self.stage == START and method == protocol.CONNECTION_START_OK:
            self._start_ok(arguments)
        elif self.stage == TUNE and method == protocol.CONNECTION_TUNE_OK:
            self._tune_ok(arguments)
        elif self.stage == OPEN and method == protocol.CONNECTION_OPEN:
            self._open(arguments)
        elif self.stage == RUNNING and method == protocol.CONNECTION_UPDATE_SECRET:
            self._send(protocol.CONNECTION_UPDATE_SECRET_OK)
        else:
            raise AmqpFault(CHANNEL_ERROR, f"unexpected method in connection state {self.stage}")

    def _start_ok(self, arguments: Arguments) -> None:
        self.client = arguments.table()
        mechanism, response = arguments.shortstr(), arguments.longstr()
        try:
            self.user = login.check(mechanism, response, self.broker.users)
        except AmqpFault:
            if not self.has_capability("authentication_failure_close"):
                self._release()
                self._finish()
                return
            raise
        self.stage = TUNE
        self._send(protocol.CONNECTION_TUNE, negotiation.tune(self._offered))

    def _tune_ok(self, arguments: Arguments) -> None:
        agreed = negotiation.tune_ok(arguments, self._offered)
        self.channel_max, self.frame_max = agreed.channel_max, agreed.frame_max
        self._splitter.frame_max = agreed.frame_max
        self.stage = OPEN
        self._agreed_heartbeat_s = agreed.heartbeat_s

    def _open(self, arguments: Arguments) -> None:
        name = arguments.shortstr()
        vhost = self.broker.vhosts.get(name)
        if vhost is None:
            raise AmqpFault(NOT_ALLOWED, f"vhost {name} not found")
        self.vhost = vhost
        self.stage = RUNNING
        self._begin_heartbeat(self._agreed_heartbeat_s)
        self._send(protocol.CONNECTION_OPEN_OK, b"\0")

    def _receive_while_closing(self, method: int) -> None:
        if method == protocol.CONNECTION_CLOSE:
            self._send(protocol.CONNECTION_CLOSE_OK)
        elif method != protocol.CONNECTION_CLOSE_OK:
            return
        self._finish()

    def has_capability(self, name: str) -> bool:
        """Whether the client said that it understands this."""
        capabilities = self.client.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(name) is True

    # Ends.

    def fail(self, channel: object, fault: AmqpFault, method: int) -> None:
        """Closes the channel, or the connection where the fault is hard; `method` is the one at fault."""
        if self.stage in (CLOSING, CLOSED):
            return
        arguments = fault.close_arguments(method)
        if channel.__class__ is Channel and not fault.is_hard:
            assert isinstance(channel, Channel)
            channel.close()
            self.channels[channel.number] = _CLOSING
            channel.send(protocol.CHANNEL_CLOSE, arguments)
            return
        is_explained = self.stage not in (HEADER, START, TUNE) or fault.code == ACCESS_REFUSED
        self._release()
        if not is_explained:
            self._finish()  # as RabbitMQ: before a client may speak, only a refused login is explained to it
            return
        self._send(protocol.CONNECTION_CLOSE, arguments)
        self.stage = CLOSING
        self._plan(CLOSE_TIMEOUT_S, self._abandon)

    def crash(self, error: Exception) -> None:
        """The broker itself failed while it served this connection."""
        self.fail(None, AmqpFault(INTERNAL_ERROR, f"{type(error).__name__}, see the broker's log"), 0)

    def force_close(self, reason: str) -> None:
        """The broker ends the connection."""
        self.fail(None, AmqpFault(CONNECTION_FORCED, reason), 0)

    def lost(self) -> None:
        """The socket is gone: everything goes back to the queues."""
        self._release()
        self._finish()

    def _release(self) -> None:
        """Nobody is served here any more. Consumers end first, so that nothing returns to them."""
        if self not in self.broker.connections:
            return
        del self.broker.connections[self]
        channels = [channel for channel in self.channels.values() if channel is not _CLOSING]
        for channel in channels:
            channel.cancel_consumers()
        for queue in list(self.exclusive_queues.values()):
            self.vhost.delete_queue(queue)
        for channel in channels:
            channel.close()
        self.channels.clear()
        self.exclusive_queues.clear()

    def _finish(self) -> None:
        """Hang up when the output is sent; or without, if the client does not take it."""
        if self.stage != CLOSED:
            self.stage = CLOSED
            self._plan(CLOSE_TIMEOUT_S, self._abandon)
        self.is_finished = True
        self.broker.dirty.append(self)

    def _abandon(self) -> None:
        """Hang up now."""
        self._release()
        self.stage = CLOSED
        self.is_finished = self.is_abandoned = True
        self.broker.dirty.append(self)

    # Time.

    def _plan(self, delay_s: float, action: Callable[[], None]) -> None:
        """One thing at a time is planned: the end of the handshake, then heartbeats, then the end of the end."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.broker.call_at(self.broker.now_s + delay_s, action)

    def _begin_heartbeat(self, interval_s: int) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if interval_s:
            self._heartbeat = Heartbeat(interval_s)
            self._plan(self._heartbeat.tick_s, self._beat)

    def _beat(self) -> None:
        assert self._heartbeat is not None
        # A client that does not take its output is not read; its taking some is a sign of life.
        heard_bytes = self.received_bytes + (self.output.sent_bytes if self.output.is_congested else 0)
        must_speak = self._heartbeat.tick(heard_bytes, self.output.sent_bytes)
        if self._heartbeat.is_dead and not self.is_paused:
            self._abandon()
            return
        if must_speak:
            self.send(protocol.HEARTBEAT_FRAME)
        self._plan(self._heartbeat.tick_s, self._beat)

    # Publishers that must wait.

    def note_publication(self) -> None:
        if not self.has_published:
            self.has_published = True
            if self.broker.blocked_because is not None:
                self.block(self.broker.blocked_because)
        elif self.is_blocked and not self.is_paused and self.broker.is_overfull:
            self._pause()

    def block(self, reason: str) -> None:
        """Tells this publisher to wait, and holds it, unless it acknowledges: that is what makes room."""
        if self.is_blocked or self.stage != RUNNING:
            return
        self.is_blocked = True
        if self.has_capability("connection.blocked"):
            self._send(protocol.CONNECTION_BLOCKED, shortstr(reason))
        channels = [channel for channel in self.channels.values() if channel is not _CLOSING]
        if self.broker.is_overfull or not any(channel.acknowledges for channel in channels):
            self._pause()

    def _pause(self) -> None:
        self.is_paused = True
        self._on_output()

    def unblock(self) -> None:
        if not self.is_blocked:
            return
        self.is_blocked = self.is_paused = False
        if self.has_capability("connection.blocked") and self.stage == RUNNING:
            self._send(protocol.CONNECTION_UNBLOCKED)
        self.broker.dirty.append(self)

    # Output.

    def _send(self, method: int, arguments: bytes = b"") -> None:
        self.send(protocol.method(0, method, arguments))

    def resume(self) -> None:
        """The client took what had piled up: its consumers go on."""
        for channel in list(self.channels.values()):
            if channel is not _CLOSING:
                channel.pump_consumers()
