"""The beginning of a connection to an AMQP broker: what py-amqp does, on green sockets.

All of this is synchronous and ends before the first byte of the hot path (`fast`). A handshake that hangs is
ended by taking its socket away, never by a Timeout inside the library; such a connection is of no further use.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import amqp
import amqp.transport

from nova import green
from nova.rpc import options, topology
from nova.rpc.topology import Plan

WORK, CONFIRMED = 1, 2
HANDSHAKE_S = 10.0
CONNECT_S = 5.0


class _GreenTransport(amqp.transport.TCPTransport):
    """py-amqp on a green socket: a handshake never stalls the hub, not even in a process that is not patched."""

    def _connect(self, host: str, port: int, timeout: float | None) -> None:
        failure: OSError | None = None
        for family, kind, protocol_number, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self.sock = green.GreenSocket(family, kind, protocol_number)
            try:
                self.sock.settimeout(timeout)
                self.sock.connect(address)
                return
            except OSError as error:
                failure = error
                self.sock.close()
                self.sock = None
        raise failure or OSError(f"{host} has no address")


class _Connection(amqp.Connection):
    def Transport(self, host: str, connect_timeout: float | None, *_: Any, **__: Any) -> _GreenTransport:
        return _GreenTransport(host, connect_timeout=connect_timeout, socket_settings=options.SOCKET_SETTINGS)


def connect(plan: Plan) -> amqp.Connection:
    """Connected, logged in, the plan declared, channels WORK and CONFIRMED open.

    Raises `OSError` or py-amqp's errors, after `HANDSHAKE_S` at the latest.
    """
    address = options.broker_address()
    connection = _Connection(
        f"{address.host}:{address.port}",
        address.user,
        address.password,
        virtual_host=address.virtual_host,
        login_method="PLAIN",
        heartbeat=int(options.FLAGS.rpc_heartbeat),
        connect_timeout=CONNECT_S,
        client_properties={"product": "nova", "connection_name": _name(plan)},
    )
    guard = green.spawn_after(HANDSHAKE_S, shut, connection)
    try:
        connection.connect()
        _declare(connection, plan)
    except BaseException:
        shut(connection)
        if connection._transport is not None:
            connection._transport.close()
        raise
    finally:
        guard.cancel()
    return connection


def _name(plan: Plan) -> str:
    """What the broker lists the connection as: the service's own queue, or who calls."""
    queues = [consumer.queue for consumer in plan.consumers if consumer.tag == topology.HOST]
    return queues[0] if queues else f"calls of {options.FLAGS.host}"


def shut(connection: amqp.Connection) -> None:
    """Let whoever reads the connection find its end. Closing the descriptor under a reader would leave it
    asleep.
    """
    transport = getattr(connection, "_transport", None)
    if transport is not None and transport.sock is not None:
        with contextlib.suppress(OSError):
            transport.sock.shutdown(socket.SHUT_RDWR)


def _declare(connection: amqp.Connection, plan: Plan) -> None:
    channel = connection.channel(WORK)
    for exchange in plan.exchanges:
        channel.exchange_declare(exchange.name, exchange.kind, durable=exchange.durable, auto_delete=False)
    for queue in plan.queues:
        channel.queue_declare(
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=False,
            arguments=queue.arguments,
        )
        for exchange_name, key in queue.bindings:
            channel.queue_bind(queue.name, exchange_name, key)
    connection.channel(CONFIRMED).confirm_select()
