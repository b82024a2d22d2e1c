"""Calls between services over a message broker, with Nova's names.

    rpc.call(context, "compute.host1", {"method": "run_instance", "args": {"instance_id": 1}})
    rpc.Client("network").call(context, "allocate_fixed_ip", instance_id=1)

    server = rpc.get_server("compute", "host1", dispatch)
    server.start()

`call` raises what the method raised where its class is allowed (`allowed_rpc_exception_modules`), `RemoteError`
for every other class, `RPCTimeout`, `NoSuchTopic`, `TopicTooLong`, `NoSuchMethod`, `MessageAbandoned`. How often a
call takes effect:

| sent to | acknowledged | if the process dies while it runs |
|---|---|---|
| the topic | after the reply | another process runs it; at most three tries, then `nova.dead` |
| topic.host | when the journal has it | the same host resumes it: `@idempotent` runs again, else `recover` |
| a method marked `@long_running` | as topic.host | as topic.host |
| fanout | on receipt | lost |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nova.rpc import topology
from nova.rpc.client import Caller
from nova.rpc.errors import (
    LinkClosed,
    MessageAbandoned,
    NoSuchMethod,
    NoSuchTopic,
    RemoteError,
    RpcError,
    RPCTimeout,
    TopicTooLong,
)
from nova.rpc.journal import Journal
from nova.rpc.options import FLAGS, broker_address
from nova.rpc.runner import Dispatch, Runner
from nova.rpc.server import Server
from nova.rpc.transport import Opener

__all__ = [
    "Client",
    "LinkClosed",
    "MessageAbandoned",
    "NoSuchMethod",
    "NoSuchTopic",
    "RPCTimeout",
    "RemoteError",
    "RpcError",
    "TopicTooLong",
    "call",
    "cast",
    "cleanup",
    "fanout_cast",
    "get_server",
    "multicall",
]

_caller: Caller | None = None


def call(context: Any, topic: str, msg: Mapping[str, Any], timeout: float | None = None) -> Any:
    """Run `msg["method"]` with `msg["args"]` on `topic` (or `topic.host`) and return its result.

    `timeout` is the silence in seconds after which the call gives up (default `rpc_response_timeout`); a service
    breaks the silence while the method runs. Raises as the module says.
    """
    return _client().call(context, topic, msg["method"], dict(msg.get("args") or {}), timeout)


def multicall(context: Any, topic: str, msg: Mapping[str, Any], timeout: float | None = None) -> Iterator[Any]:
    """An iterator over what the method yields, as it comes; `close()` it to listen no longer."""
    return _client().multicall(context, topic, msg["method"], dict(msg.get("args") or {}), timeout)


def cast(context: Any, topic: str, msg: Mapping[str, Any]) -> None:
    """Have the method run some time; returns when the broker has the message on disk.

    Raises `NoSuchTopic`, and `RPCTimeout` when the broker does not answer: then the outcome is not known.
    """
    _client().cast(context, topic, msg["method"], dict(msg.get("args") or {}))


def fanout_cast(context: Any, topic: str, msg: Mapping[str, Any]) -> None:
    """Have the method run in every process that listens on `topic` now."""
    _client().fanout(context, topic, msg["method"], dict(msg.get("args") or {}))


class Client:
    """Calls to one topic, or one server of it. Immutable: `prepare` makes another."""

    def __init__(self, topic: str, server: str | None = None, timeout: float | None = None) -> None:
        self.topic = topic
        self.server = server
        self.timeout = timeout

    def prepare(self, **changes: Any) -> Client:
        """The same with another `topic`, `server` or `timeout`."""
        return Client(**{"topic": self.topic, "server": self.server, "timeout": self.timeout, **changes})

    def call(self, context: Any, method: str, **args: Any) -> Any:
        return _client().call(context, self._key(), method, args, self.timeout)

    def multicall(self, context: Any, method: str, **args: Any) -> Iterator[Any]:
        return _client().multicall(context, self._key(), method, args, self.timeout)

    def cast(self, context: Any, method: str, **args: Any) -> None:
        _client().cast(context, self._key(), method, args, self.timeout)

    def fanout(self, context: Any, method: str, **args: Any) -> None:
        _client().fanout(context, self.topic, method, args, self.timeout)

    def _key(self) -> str:
        return topology.server_key(self.topic, self.server)


def get_server(
    topic: str,
    host: str,
    dispatch: Dispatch,
    prefetch: int | None = None,
    *,
    method_of: Callable[[str], Any] | None = None,
    recover: Dispatch | None = None,
) -> Server:
    """A server that runs `dispatch(context, method, args)` for each message, in a greenlet of its own.

    `prefetch`: how many at a time (default `rpc_thread_pool_size`). `method_of(name)` returns the method whose
    marks `rpc_idempotent` and `rpc_long_running` count, or None. `recover(context, method, args)` answers for a
    call to this host that had begun when an earlier process died.
    """
    journal = None
    if FLAGS.rpc_journal:
        journal = Journal(os.path.join(FLAGS.state_path, f"{topology.server_key(topic, host)}.journal"))
    runner = Runner(dispatch, method_of, recover)
    return Server(topic, host, runner, prefetch or FLAGS.rpc_thread_pool_size, journal, _opener())


def cleanup() -> None:
    """Close this process's client connection; the last step of a shutdown. The next call would open another."""
    global _caller
    caller, _caller = _caller, None
    if caller is not None:
        caller.close()


def _client() -> Caller:
    global _caller
    if _caller is None:
        _caller = Caller(_opener())
    return _caller


def _opener() -> Opener:
    """The transport that the flags ask for; only that one is imported."""
    if FLAGS.fake_rabbit:
        from nova.rpc.fake import open_session as open_fake

        return open_fake
    scheme = broker_address().scheme
    if FLAGS.rpc_transport == "fast" or (FLAGS.rpc_transport == "auto" and scheme == "amqp"):
        from nova.rpc.fast import open_session as open_fast

        return open_fast
    from nova.rpc.portable import open_session as open_portable

    return open_portable
