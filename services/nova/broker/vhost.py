"""A virtual host: its exchanges, queues and bindings, and the way of a publication through them.

It checks what clients declare (RabbitMQ's rules and texts), follows bindings, remembers routings that the key
alone decides, and keeps the journal's definitions up to date through `Surroundings.define`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nova.broker import arguments as args
from nova.broker.errors import (
    ACCESS_REFUSED,
    COMMAND_INVALID,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_ERROR,
    RESOURCE_LOCKED,
    AmqpFault,
)
from nova.broker.exchange import ROUTERS, Binding, Exchange
from nova.broker.queue import Queue, Surroundings

if TYPE_CHECKING:
    from nova.broker.message import Message

MAX_REMEMBERED = 8192  # routings; publishers with a new key each time must not fill the memory
MAX_QUEUES = 100_000
PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}


class Around(Surroundings, Protocol):
    """What a virtual host needs beyond what its queues need."""

    is_strict: bool

    def define(self, kind: str, **fields: Any) -> None:
        """Writes a durable definition, or its end, into the journal."""


class VirtualHost:
    def __init__(self, name: str, around: Around) -> None:
        self.name = name
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self._around = around
        self._routes: dict[tuple[str, str], tuple[Queue, ...]] = {}
        for exchange, type in PREDECLARED.items():
            self.exchanges[exchange] = Exchange(exchange, type, durable=True)

    # Publications.

    def route(self, exchange_name: str, routing_key: str, header: bytes) -> tuple[Queue, ...]:
        """The queues that a publication reaches, each once. Raises `AmqpFault` for an unknown exchange."""
        found = self._routes.get((exchange_name, routing_key))
        if found is not None:
            return found
        queues: dict[str, Queue] = {}
        if not exchange_name:
            queue = self.queues.get(routing_key)
            if queue is not None:
                queues[routing_key] = queue
            by_key = True
        else:
            by_key = self._follow(self.exchange(exchange_name), routing_key, header, queues)
        found = tuple(queues.values())
        if by_key:
            if len(self._routes) >= MAX_REMEMBERED:
                self._routes.clear()
            self._routes[exchange_name, routing_key] = found
        return found

    def _follow(self, start: Exchange, routing_key: str, header: bytes, queues: dict[str, Queue]) -> bool:
        """Collects the queues that bindings lead to. True where the routing key alone decided."""
        todo, seen, by_key = [start], {start.name}, True
        while todo:
            exchange = todo.pop()
            by_key = by_key and exchange.is_by_key
            bindings = list(exchange.match(routing_key, header))
            nexts = [binding.destination for binding in bindings]
            if not bindings and exchange.alternate is not None:
                nexts = self._alternate(exchange.alternate, routing_key)
            for destination in nexts:
                if isinstance(destination, Queue):
                    queues[destination.name] = destination
                elif destination.name not in seen:
                    seen.add(destination.name)
                    todo.append(destination)
        return by_key

    def _alternate(self, name: str, routing_key: str) -> list[Queue | Exchange]:
        if name:
            alternate = self.exchanges.get(name)
            return [] if alternate is None else [alternate]
        queue = self.queues.get(routing_key)
        return [] if queue is None else [queue]

    def exchange(self, name: str) -> Exchange:
        """Raises `AmqpFault` 404."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise AmqpFault(NOT_FOUND, f"no exchange '{name}' in vhost '{self.name}'")
        return exchange

    def queue(self, name: str, owner: object) -> Queue:
        """Raises `AmqpFault`: 404, or 405 for another connection's exclusive queue."""
        queue = self.queues.get(name)
        if queue is None:
            raise AmqpFault(NOT_FOUND, f"no queue '{name}' in vhost '{self.name}'")
        if queue.owner is not None and queue.owner is not owner:
            raise self._locked(name)
        return queue

    def _locked(self, name: str) -> AmqpFault:
        return AmqpFault(
            RESOURCE_LOCKED,
            f"cannot obtain exclusive access to locked queue '{name}' in vhost '{self.name}'. It could be"
            " originally declared on another connection or the exclusive property value does not match that of"
            " the original declaration.",
        )

    # Exchanges.

    def declare_exchange(
        self, name: str, type: str, raw: Mapping[str, Any], *, durable: bool, auto_delete: bool, internal: bool
    ) -> Exchange:
        """The exchange of that name, made where there is none. Raises `AmqpFault`."""
        refuse_default(name)
        if type not in ROUTERS:
            raise AmqpFault(COMMAND_INVALID, f"unknown exchange type '{type}'")
        where = f"exchange '{name}' in vhost '{self.name}'"
        existing = self.exchanges.get(name)
        if existing is None:
            if name.startswith("amq."):
                raise AmqpFault(ACCESS_REFUSED, f"exchange name '{name}' contains reserved prefix 'amq.*'")
            alternate = args.alternate_exchange(raw, f"exchange '{name}' in vhost '{self.name}'")
            existing = Exchange(
                name,
                type,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=raw,
                alternate=alternate,
            )
            self.add_exchange(existing)
            if durable:
                self._define_exchange(existing)
            return existing
        _check_same("type", existing.type, type, where)
        _check_same("durable", existing.durable, durable, where)
        _check_same("auto_delete", existing.auto_delete, auto_delete, where)
        _check_same("internal", existing.internal, internal, where)
        args.check_equal(args.EXCHANGE_IDENTITY, existing.arguments, raw, where)
        return existing

    def add_exchange(self, exchange: Exchange) -> None:
        self.exchanges[exchange.name] = exchange
        self._routes.clear()

    def _define_exchange(self, exchange: Exchange) -> None:
        self._around.define(
            "exchange",
            vhost=self.name,
            name=exchange.name,
            type=exchange.type,
            auto_delete=exchange.auto_delete,
            internal=exchange.internal,
            arguments=exchange.arguments,
        )

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Raises `AmqpFault`; an exchange that does not exist is deleted already."""
        refuse_default(name)
        if name in PREDECLARED:
            text = f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed"
            raise AmqpFault(ACCESS_REFUSED, text)
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise AmqpFault(PRECONDITION_FAILED, f"exchange '{name}' in vhost '{self.name}' in use")
        self._remove_exchange(exchange)

    def _remove_exchange(self, exchange: Exchange) -> None:
        if self.exchanges.pop(exchange.name, None) is None:
            return
        if exchange.durable:
            self._around.define("exchange-deleted", vhost=self.name, name=exchange.name)
        for binding in list(exchange.bindings.values()):
            self._remove_binding(binding)
        for binding in list(exchange.incoming.values()):
            self._remove_binding(binding)
        self._routes.clear()

    # Queues.

    def declare_queue(
        self,
        name: str,
        raw: Mapping[str, Any],
        *,
        durable: bool,
        auto_delete: bool,
        owner: object | None,
        asker: object,
    ) -> Queue:
        """The queue of that name, made where there is none; an empty name asks for a fresh one.

        `owner` is the asking connection where the queue is to be exclusive. Raises `AmqpFault`.
        """
        durable = durable and owner is None  # what dies with its connection is not worth a journal entry
        existing = self.queues.get(name) if name else None
        if existing is not None:
            if existing.owner is not owner or (existing.owner is not None and existing.owner is not asker):
                raise self._locked(name)
            where = f"queue '{name}' in vhost '{self.name}'"
            _check_same("durable", existing.durable, durable, where)
            _check_same("auto_delete", existing.auto_delete, auto_delete, where)
            args.check_equal(args.QUEUE_IDENTITY, existing.arguments.raw, raw, where)
            existing.touch()
            return existing
        if name.startswith("amq."):
            raise AmqpFault(ACCESS_REFUSED, f"queue name '{name}' contains reserved prefix 'amq.*'")
        self._check_new_queue(name, durable, owner)
        name = name or f"amq.gen-{secrets.token_urlsafe(16)}"
        checked = args.QueueArguments(raw, f"queue '{name}' in vhost '{self.name}'")
        queue = Queue(
            name,
            checked,
            self._around,
            durable=durable,
            auto_delete=auto_delete,
            owner=owner,
            vhost=self.name,
        )
        self.add_queue(queue)
        if durable:
            queue.number = self._around.next_number()
            self._define_queue(queue)
        queue.touch()
        return queue

    def _check_new_queue(self, name: str, durable: bool, owner: object | None) -> None:
        if self._around.is_strict and not durable and owner is None:
            # RabbitMQ's deprecated feature `transient_nonexcl_queues`, off by default from 4.3 on.
            raise AmqpFault(
                PRECONDITION_FAILED,
                f"queue '{name}' in vhost '{self.name}' is neither durable nor exclusive, which RabbitMQ refuses"
                " from 4.3 on: declare it durable (with x-expires) or exclusive, or run nova-broker --no-strict",
            )
        if len(self.queues) >= MAX_QUEUES:
            text = f"cannot declare queue '{name}': queue limit in vhost '{self.name}' ({MAX_QUEUES}) is reached"
            raise AmqpFault(RESOURCE_ERROR, text)

    def add_queue(self, queue: Queue) -> None:
        self.queues[queue.name] = queue
        self._routes.clear()

    def _define_queue(self, queue: Queue) -> None:
        self._around.define(
            "queue",
            vhost=self.name,
            name=queue.name,
            number=queue.number,
            auto_delete=queue.auto_delete,
            arguments=queue.arguments.raw,
        )

    def delete_queue(self, queue: Queue) -> int:
        """Its consumers are told (basic.cancel). The number of messages that were ready."""
        if queue.is_deleted:
            return 0
        count = queue.close()
        self.queues.pop(queue.name, None)
        self._routes.clear()
        for consumer in list(queue.consumers):
            consumer.channel.on_queue_deleted(consumer)
        if queue.durable:
            self._around.define("queue-deleted", vhost=self.name, name=queue.name, number=queue.number)
        for binding in list(queue.incoming.values()):
            self._remove_binding(binding)
        return count

    # Bindings.

    def bind(
        self, source_name: str, destination: Queue | Exchange, routing_key: str, raw: Mapping[str, Any]
    ) -> None:
        """Raises `AmqpFault`; a binding that exists already is left as it is."""
        source = self.exchange(source_name)
        source.check_binding(raw)
        binding = Binding(source, destination, routing_key, raw)
        if not self.add_binding(binding):
            return
        if source.durable and destination.durable:
            self._around.define("binding", **self._describe(binding))

    def add_binding(self, binding: Binding) -> bool:
        """False where it exists already."""
        if not binding.source.add(binding):
            return False
        binding.destination.incoming[id(binding)] = binding
        self._routes.clear()
        return True

    def _describe(self, binding: Binding) -> dict[str, Any]:
        return {
            "vhost": self.name,
            "source": binding.source.name,
            "destination": binding.destination.name,
            "to": "queue" if isinstance(binding.destination, Queue) else "exchange",
            "routing_key": binding.routing_key,
            "arguments": binding.arguments,
        }

    def unbind(
        self, source: Exchange, destination: Queue | Exchange, routing_key: str, raw: Mapping[str, Any]
    ) -> None:
        """A binding that does not exist is unbound already."""
        binding = source.bindings.get(Binding(source, destination, routing_key, raw).key)
        if binding is not None:
            self._remove_binding(binding)

    def _remove_binding(self, binding: Binding) -> None:
        source, destination = binding.source, binding.destination
        if not source.remove(binding):
            return
        destination.incoming.pop(id(binding), None)
        self._routes.clear()
        is_recorded = source.durable and destination.durable and source.name in self.exchanges
        if is_recorded and self._exists(destination):
            self._around.define("binding-deleted", **self._describe(binding))
        if source.auto_delete and not source.bindings:
            self._remove_exchange(source)

    def _exists(self, destination: Queue | Exchange) -> bool:
        if isinstance(destination, Queue):
            return not destination.is_deleted
        return destination.name in self.exchanges

    def put(self, queues: tuple[Queue, ...], message: Message) -> bool:
        """Puts a publication into each queue. False where one of them refused it."""
        accepted = True
        for index, queue in enumerate(queues):
            if not queue.put(message if index == 0 else message.copy()):
                accepted = False
        return accepted


def refuse_default(exchange_name: str) -> None:
    """Raises `AmqpFault` where the name means the default exchange."""
    if not exchange_name:
        raise AmqpFault(ACCESS_REFUSED, "operation not permitted on the default exchange")


def _check_same(field: str, current: str | bool, asked: str | bool, where: str) -> None:
    if current != asked:
        one, other = (str(value).lower() if isinstance(value, bool) else value for value in (asked, current))
        text = f"inequivalent arg '{field}' for {where}: received '{one}' but current is '{other}'"
        raise AmqpFault(PRECONDITION_FAILED, text)
