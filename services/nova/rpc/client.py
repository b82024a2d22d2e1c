"""The caller's side: one `Caller` a process, with one link, one reply consumer and all calls that wait.

A call is a message and an entry in a table; its reply finds the entry by the message's id. A call that has no
answer when the link is lost is sent again on the next one, with the same id: it runs at least once, and services
that keep a journal run it once. Each call ends by its deadline at the latest, whatever happens to the broker.
`timeout` is the silence that a caller bears, not the time a method may take: a service says every half timeout
that a call is alive. `rpc_call_limit`, or the deadline of the call that this one is nested in, is the hard limit.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

from nova import green
from nova.rpc import remote, serving, topology, wire
from nova.rpc.errors import LinkClosed, MalformedMessage, NoSuchTopic, RPCTimeout
from nova.rpc.latch import Latch
from nova.rpc.link import Link
from nova.rpc.options import FLAGS
from nova.rpc.sweep import Sweep
from nova.rpc.transport import Delivery, Message, Opener

LOG = logging.getLogger(__name__)


class Waiter:
    """A call without an answer yet. `due_s` and `limit_s` are monotonic."""

    __slots__ = ("count", "due_s", "event", "items", "key", "last", "limit_s", "request")

    def __init__(self, request: wire.Request, key: str, limit_s: float, is_stream: bool) -> None:
        self.request = request
        self.key = key
        self.limit_s = limit_s
        self.due_s = 0.0
        self.count = 0
        self.last: Any = None
        self.event = Latch()
        self.items = green.LightQueue() if is_stream else None

    def hear(self, now_s: float) -> None:
        """The service has said something."""
        self.due_s = min(now_s + (self.request.timeout_s or 0.0), self.limit_s)

    def end(self, reply: dict[str, Any] | Exception) -> None:
        if self.items is not None:
            self.items.put(reply)
        elif isinstance(reply, Exception):
            self.event.send_exception(reply)
        else:
            self.event.send(reply)


class Caller:
    """Sends calls and casts; the handler of its link."""

    def __init__(self, opener: Opener) -> None:
        self._exchange: str = FLAGS.control_exchange
        self._waiting: dict[str, Waiter] = {}
        self._sweep = Sweep(self._expire)
        self._prefix = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)
        self._link = Link("rpc client", topology.client_plan(self._exchange), self, opener)
        self._link.start()

    def call(
        self, context: Any, key: str, method: str, args: dict[str, Any], timeout_s: float | None = None
    ) -> Any:
        """The method's result; of a method that yields, its last item. Raises as `nova.rpc.call` says."""
        waiter = self._ask(context, key, method, args, timeout_s, is_stream=False)
        try:
            reply = waiter.event.wait()
        finally:
            self._waiting.pop(waiter.request.unique_id, None)
        if "failure" in reply:
            raise remote.rebuild(reply["failure"], FLAGS.allowed_rpc_exception_modules)
        return reply.get("result")

    def multicall(
        self, context: Any, key: str, method: str, args: dict[str, Any], timeout_s: float | None = None
    ) -> Iterator[Any]:
        """An iterator of the items that the method yields, or of its one result. The call is sent at once."""
        return self._items(self._ask(context, key, method, args, timeout_s, is_stream=True))

    def _items(self, waiter: Waiter) -> Iterator[Any]:
        assert waiter.items is not None
        try:
            while True:
                reply = waiter.items.get()
                if isinstance(reply, Exception):
                    raise reply
                if "failure" in reply:
                    raise remote.rebuild(reply["failure"], FLAGS.allowed_rpc_exception_modules)
                if "result" in reply:
                    yield reply["result"]
                if "more" not in reply:
                    return
        finally:
            self._waiting.pop(waiter.request.unique_id, None)

    def cast(
        self, context: Any, key: str, method: str, args: dict[str, Any], timeout_s: float | None = None
    ) -> None:
        """Returns when the broker has the message on disk.

        Raises `NoSuchTopic`, `TopicTooLong`, `RPCTimeout`, `LinkClosed`.
        """
        self._post(context, self._exchange, key, method, args, timeout_s, is_kept=True)

    def fanout(
        self, context: Any, topic: str, method: str, args: dict[str, Any], timeout_s: float | None = None
    ) -> None:
        """To every process that listens on the topic now; nobody is told if there is none."""
        exchange = topology.fanout_exchange(topic)
        self._post(context, exchange, "", method, args, timeout_s, is_kept=False)

    def close(self) -> None:
        """End the link; whoever still waits gets `LinkClosed`."""
        self._link.close()
        self._sweep.stop()
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            waiter.end(LinkClosed(f"{waiter.key}: {waiter.request.method}: this process has closed its RPC"))

    def _ask(
        self,
        context: Any,
        key: str,
        method: str,
        args: dict[str, Any],
        timeout_s: float | None,
        is_stream: bool,
    ) -> Waiter:
        if self._link.is_closed():
            raise LinkClosed("this process has closed its RPC")
        request = self._request(context, method, args)
        now, now_s = time.time(), time.monotonic()
        outer = serving.current()
        limit_s: float = FLAGS.rpc_call_limit
        if outer is not None:
            request.depth = outer.depth + 1
            key = topology.nested_key(key)
            if outer.deadline is not None:
                limit_s = min(limit_s, outer.deadline - now)
        topology.checked(key)
        silence_s: float = FLAGS.rpc_response_timeout if timeout_s is None else timeout_s
        request.msg_id = request.unique_id
        request.timeout_s = min(silence_s, limit_s)
        request.deadline = now + limit_s
        waiter = Waiter(request, key, now_s + limit_s, is_stream)
        waiter.hear(now_s)
        message = self._message(waiter, now)  # raises for what JSON cannot carry, before anything waits
        self._waiting[request.unique_id] = waiter
        self._sweep.note(waiter.due_s)
        may_write = self._link.wait_writable(waiter.due_s - now_s)
        if may_write and self._link.is_up() and request.unique_id in self._waiting:
            self._link.send(message)  # otherwise `on_up` does
        return waiter

    def _request(self, context: Any, method: str, args: dict[str, Any]) -> wire.Request:
        values = context if isinstance(context, dict) else context.to_dict() if context is not None else {}
        return wire.Request(method, args, values, f"{self._prefix}-{next(self._numbers)}")

    def _message(self, waiter: Waiter, now: float) -> Message:
        request = waiter.request
        request.sent = now
        return Message(
            wire.encode_request(request),
            self._exchange,
            waiter.key,
            request.unique_id,
            topology.DIRECT_REPLY,
            mandatory=True,
        )

    def _post(
        self,
        context: Any,
        exchange: str,
        key: str,
        method: str,
        args: dict[str, Any],
        timeout_s: float | None,
        is_kept: bool,
    ) -> None:
        topology.checked(key)
        topology.checked(exchange)
        request = self._request(context, method, args)
        body = wire.encode_request(request)
        message = Message(body, exchange, key, request.unique_id, persistent=is_kept, mandatory=is_kept)
        self._link.deliver(message, FLAGS.rpc_response_timeout if timeout_s is None else timeout_s)

    # The link's handler

    def on_delivery(self, delivery: Delivery) -> None:
        waiter = self._waiting.get(delivery.correlation_id or "")
        if waiter is None:
            return  # it gave up, or this is the second answer to a call that was sent twice
        try:
            reply = wire.decode_reply(delivery.body)
        except MalformedMessage as error:
            LOG.warning("reply to %s: %s; ignored", waiter.request.method, error)
            return
        if "alive" in reply or "more" in reply:
            waiter.hear(time.monotonic())
            self._on_item(waiter, reply)
            return
        del self._waiting[waiter.request.unique_id]
        if "ending" in reply and waiter.items is None:
            reply = {"result": waiter.last}
        waiter.end(reply)

    def _on_item(self, waiter: Waiter, reply: dict[str, Any]) -> None:
        """An item of a method that yields; a call that ran twice sends the first items twice."""
        if "more" not in reply or reply["more"] < waiter.count:
            return
        waiter.count += 1
        waiter.last = reply.get("result")
        if waiter.items is not None:
            waiter.items.put(reply)

    def on_return(self, message_id: str | None, reason: str) -> None:
        waiter = self._waiting.pop(message_id or "", None)
        if waiter is not None:
            waiter.end(NoSuchTopic(f"nobody listens on {waiter.key}"))

    def on_up(self) -> None:
        now = time.time()
        for waiter in self._waiting.values():
            self._link.send(self._message(waiter, now))

    def on_down(self, reason: str) -> None:
        """Calls wait for the next connection, or for their deadline."""

    def _expire(self, now_s: float) -> float | None:
        """Ends the calls that are due; the next due time."""
        due = [waiter for waiter in self._waiting.values() if waiter.due_s <= now_s]
        for waiter in due:
            del self._waiting[waiter.request.unique_id]
            waiter.end(RPCTimeout(self._timeout_text(waiter, now_s)))
        return min((waiter.due_s for waiter in self._waiting.values()), default=None)

    def _timeout_text(self, waiter: Waiter, now_s: float) -> str:
        request = waiter.request
        if not self._link.is_up():
            return f"{waiter.key}: {request.method}: no connection to the broker: {self._link.reason}"
        if now_s >= waiter.limit_s:
            return f"{waiter.key}: {request.method}: did not end by its deadline; it may still run"
        return f"{waiter.key}: {request.method}: silent for {request.timeout_s:g} s; it may have run"
