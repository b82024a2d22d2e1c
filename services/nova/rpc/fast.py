"""RPC's hot path on amqp://: py-amqp shakes hands and declares, everything after that is our own codec.

py-amqp spends most of a call in system calls: eleven reads a message, a write for each frame group, and a
hidden read inside each publish. Here one greenlet reads (`run`), in large pieces; everyone else appends to a
list that is written once per turn of the hub. The synchronous methods of py-amqp all run before the reader
starts: on a connection that somebody reads they would take each other's answers. Channel 1 carries consumers,
acks, calls and replies (direct reply-to wants the caller to publish where it consumes); channel 2 is in confirm
mode and carries what was posted. Acks are collected until the write: those of one turn that follow each other
are one frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import amqp

from nova import green
from nova.broker import protocol
from nova.rpc import frames, handshake
from nova.rpc.acks import Acks
from nova.rpc.errors import LinkLost, NoSuchTopic
from nova.rpc.handshake import CONFIRMED, WORK
from nova.rpc.topology import Plan
from nova.rpc.transport import Delivery, Handler, Message, Post

LOG = logging.getLogger(__name__)

_DELIVER = protocol.U32.pack(protocol.BASIC_DELIVER)
READ_BYTES = 262_144
WRITE_HIGH_WATER = 8 * 1024 * 1024


def open_session(plan: Plan, handler: Handler) -> FastSession:
    """Connect, log in, declare. Raises `OSError` or py-amqp's errors."""
    return FastSession(handshake.connect(plan), plan, handler)


class FastSession:
    """One connection; see `transport.Session`."""

    def __init__(self, connection: amqp.Connection, plan: Plan, handler: Handler) -> None:
        transport = connection.transport
        self._connection = connection  # keeps the socket from being collected
        self._socket = transport.sock
        self._leftover = bytes(transport._read_buffer)
        self._frame_max = connection.frame_max
        self._heartbeat_s = connection.heartbeat or 0
        self._plan = plan
        self._handler = handler
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_scheduled = False
        self._is_writing = False
        self._is_blocked = False
        self._is_closing = False
        self._written = green.Event()
        self._unconfirmed: dict[int, Post] = {}
        self._posted = 0
        self._awaited: dict[tuple[int, str], green.Event] = {}
        self._read_s = self._write_s = time.monotonic()
        self._assembler = frames.Assembler()
        self._acks = Acks()
        self._acknowledging = {consumer.tag for consumer in plan.consumers if not consumer.no_ack}
        self._declared_fanouts: set[str] = {exchange.name for exchange in plan.exchanges}

    # Reading

    def run(self, on_ready: Callable[[], None]) -> None:
        pulse = green.spawn(self._pulse) if self._heartbeat_s else None
        green.spawn_n(self._begin, on_ready)
        splitter = protocol.FrameSplitter(self._frame_max)
        data, receive, clock = self._leftover, self._socket.recv, time.monotonic
        try:
            while True:
                self._dispatch(splitter.feed(data))
                data = receive(READ_BYTES)
                self._read_s = clock()
                if not data:
                    raise LinkLost("the broker closed the connection")
        except (ValueError, IndexError, KeyError) as error:
            raise LinkLost(f"the broker sent what is no AMQP: {error}") from error
        except LinkLost:
            if not self._is_closing:
                raise
        except OSError:
            if not self._is_closing:
                raise
        finally:
            self._is_closing = True
            self._settle_waiters()
            self._connection.transport.close()
            if pulse is not None:
                pulse.kill()

    def _begin(self, on_ready: Callable[[], None]) -> None:
        """Consume, and say so when the broker has confirmed every consumer."""
        confirmed = []
        for consumer in self._plan.consumers:
            if not consumer.no_ack:
                self._write(frames.qos(WORK, consumer.prefetch))
            confirmed.append(self._await(protocol.BASIC_CONSUME_OK, consumer.tag))
            self._write(frames.consume(WORK, consumer.queue, consumer.tag, consumer.no_ack))
        for event in confirmed:
            event.wait()
        if not self._is_closing:
            on_ready()

    def _dispatch(self, received: list[protocol.Frame]) -> None:
        assembler, index, count = self._assembler, 0, len(received)
        while index < count:
            kind, channel, payload = received[index]
            if payload[:4] == _DELIVER and kind == protocol.METHOD and protocol.is_whole_message(received, index):
                _, correlation_id, reply_to = frames.read_header(received[index + 1][2])
                self._deliver(payload, received[index + 2][2], correlation_id, reply_to)
                index += 3
                continue
            index += 1
            if kind == protocol.BODY:
                content = assembler.body(channel, payload)
            elif kind == protocol.HEADER:
                content = assembler.head(channel, payload)
            elif kind == protocol.METHOD:
                method_id = protocol.U32.unpack_from(payload)[0]
                if method_id in (protocol.BASIC_DELIVER, protocol.BASIC_RETURN):
                    assembler.begin(channel, payload)
                else:
                    self._on_method(method_id, payload)
                continue
            else:
                continue  # a heartbeat: its arrival was all it had to say
            if content is not None:
                self._on_content(content)

    def _on_content(self, content: list) -> None:
        payload, body, _, correlation_id, reply_to, _ = content
        if protocol.U32.unpack_from(payload)[0] == protocol.BASIC_RETURN:
            code, text, key = frames.read_return(payload)
            self._on_return(correlation_id, f"{code} {text}: {key}")
            return
        self._deliver(payload, body, correlation_id, reply_to)

    def _deliver(self, payload: bytes, body: bytes, correlation_id: str | None, reply_to: str | None) -> None:
        consumer, tag, redelivered = frames.read_deliver(payload)
        if consumer in self._acknowledging:
            self._acks.outstanding[tag] = None
        self._handler.on_delivery(Delivery(self, consumer, tag, redelivered, body, correlation_id, reply_to))

    def _on_return(self, correlation_id: str | None, reason: str) -> None:
        for post in self._unconfirmed.values():
            if correlation_id is not None and post.message.correlation_id == correlation_id:
                post.error = NoSuchTopic(f"nobody listens on {post.message.routing_key}")
                return  # its confirm follows
        self._handler.on_return(correlation_id, reason)

    def _on_method(self, method_id: int, payload: bytes) -> None:
        if method_id in (protocol.BASIC_ACK, protocol.BASIC_NACK):
            self._on_confirm(method_id == protocol.BASIC_ACK, *frames.read_confirm(payload))
        elif method_id in (protocol.BASIC_CONSUME_OK, protocol.BASIC_CANCEL_OK):
            event = self._awaited.pop((method_id, protocol.Arguments(payload).shortstr()), None)
            if event is not None:
                event.send()
        elif method_id == protocol.CONNECTION_BLOCKED:
            self._is_blocked = True
            LOG.warning("the broker takes no messages for now: %s", protocol.Arguments(payload).shortstr())
        elif method_id == protocol.CONNECTION_UNBLOCKED:
            self._is_blocked = False
            self._announce_written()
            LOG.info("the broker takes messages again")
        elif method_id == protocol.CONNECTION_CLOSE:
            self._write(frames.close_ok())
            self._flush()
            raise LinkLost(f"the broker closed the connection: {frames.read_close(payload)}")
        elif method_id == protocol.CHANNEL_CLOSE:
            raise LinkLost(f"the broker closed the channel: {frames.read_close(payload)}")
        elif method_id == protocol.BASIC_CANCEL:
            raise LinkLost(f"the broker cancelled consumer {protocol.Arguments(payload).shortstr()}")
        elif method_id == protocol.CONNECTION_CLOSE_OK:
            raise LinkLost("closed")

    def _on_confirm(self, taken: bool, tag: int, multiple: bool) -> None:
        unconfirmed = self._unconfirmed
        tags = [tag]
        if multiple:
            last = tag or self._posted
            tags = [known for known in unconfirmed if known <= last]
        for number in tags:
            post = unconfirmed.pop(number, None)
            if post is None:
                continue
            if taken or post.error is not None:
                post.settle()
            else:
                green.spawn_after(0.5, self._post_again, post)

    def _post_again(self, post: Post) -> None:
        """The broker refused for now (a full queue); the poster's deadline ends this."""
        if not self._is_closing and not post.is_settled():
            self.post(post)

    # Writing

    def send(self, message: Message) -> None:
        self._publish(WORK, message)

    def post(self, post: Post) -> None:
        message = post.message
        exchange = message.exchange
        if exchange.endswith("_fanout") and exchange not in self._declared_fanouts:
            # Publishing to an exchange that is missing closes the channel; a fanout may precede its first
            # listener.
            self._declared_fanouts.add(exchange)
            self._write(frames.declare_exchange(CONFIRMED, exchange, "fanout"))
        self._posted += 1
        self._unconfirmed[self._posted] = post
        self._publish(CONFIRMED, message)

    def _publish(self, channel: int, message: Message) -> None:
        body = message.body
        marks = (len(body), message.persistent, message.correlation_id, message.reply_to)
        if message.headers is None:
            header = frames.header(*marks)
        else:
            header = frames.header_with_table(*marks, message.headers)
        method = frames.publish(message.exchange, message.routing_key, message.mandatory)
        self._write(protocol.content(channel, method, header, body, self._frame_max))

    def ack(self, delivery: Delivery) -> None:
        self._acks.due.add(delivery.tag)
        if not self._is_scheduled:
            self._schedule_flush()

    def requeue(self, delivery: Delivery) -> None:
        self._acks.outstanding.pop(delivery.tag, None)
        self._write(frames.requeue(WORK, delivery.tag))

    def cancel(self, tags: frozenset[str], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        confirmed = []
        for consumer in self._plan.consumers:
            if consumer.tag in tags:
                confirmed.append(self._await(protocol.BASIC_CANCEL_OK, consumer.tag))
                self._write(frames.cancel(WORK, consumer.tag))
        for event in confirmed:
            event.wait(max(0.0, deadline_s - time.monotonic()))
        return all(event.ready() for event in confirmed)

    def wait_writable(self, timeout_s: float) -> bool:
        if not self._is_blocked and self._out_bytes < WRITE_HIGH_WATER:
            return True
        deadline_s = time.monotonic() + timeout_s
        while self._is_blocked or self._out_bytes >= WRITE_HIGH_WATER:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if self._is_closing:
                return True
            self._written.wait(left_s)
        return True

    def flush(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while self._out or self._acks.due or self._is_writing:
            left_s = deadline_s - time.monotonic()
            if self._is_closing or left_s <= 0:
                return False
            self._written.wait(left_s)
        return True

    def close(self, timeout_s: float) -> None:
        if timeout_s > 0 and not self._is_closing:
            # Closing the socket at once could discard acks that the broker has not read; its close-ok says it
            # has.
            closed = self._await(protocol.CONNECTION_CLOSE_OK, "")
            self._is_closing = True
            self._write_acks()  # nothing is heard behind the farewell
            self._write(frames.close_connection())
            closed.wait(timeout_s)
        self._is_closing = True
        self._settle_waiters()
        handshake.shut(self._connection)

    def _settle_waiters(self) -> None:
        awaited, self._awaited = self._awaited, {}
        for event in awaited.values():
            event.send()
        self._announce_written()

    def _await(self, method_id: int, tag: str) -> green.Event:
        event = self._awaited[method_id, tag] = green.Event()
        return event

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        self._schedule_flush()

    def _write_acks(self) -> None:
        if self._acks.due:
            for tag, is_multiple in self._acks.take():
                self._write(frames.ack(WORK, tag, is_multiple))

    def _schedule_flush(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            green.schedule(self._flush)

    def _flush(self) -> None:
        """In the hub, at the end of its turn: one write for everything of this turn."""
        if self._is_writing:
            self._is_scheduled = False
            return
        self._write_acks()
        self._is_scheduled = False
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        try:
            count = self._socket.fd.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            return  # the reader sees the same and ends the session
        self._write_s = time.monotonic()
        self._out_bytes -= count
        if count < len(data):
            self._is_writing = True
            green.spawn_n(self._write_rest, data[count:])
        else:
            self._announce_written()

    def _write_rest(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            return
        self._is_writing = False
        self._out_bytes -= len(data)
        self._write_s = time.monotonic()
        if self._out or self._acks.due:
            self._flush()
        else:
            self._announce_written()

    def _announce_written(self) -> None:
        event, self._written = self._written, green.Event()
        event.send()

    def _pulse(self) -> None:
        """Heartbeats by the clock, whatever the traffic; and the end of a broker that sends none."""
        interval_s = self._heartbeat_s / 2
        while True:
            green.sleep(interval_s)
            now_s = time.monotonic()
            if now_s - self._write_s >= interval_s:
                self._write(protocol.HEARTBEAT_FRAME)
            if now_s - self._read_s > 2 * self._heartbeat_s:
                green.sleep(0.1)  # the hub may have stood still, not the broker: let the reader look first
                if time.monotonic() - self._read_s > 2 * self._heartbeat_s:
                    LOG.warning("the broker was silent for %d s", 2 * self._heartbeat_s)
                    handshake.shut(self._connection)
                    return
