"""Runs one call: context, deadline, dispatch, and what came of it as the bytes of a reply.

It knows the service's methods and nothing of queues. A method that raises has answered: a caller gets the
failure, a cast is tried again if its method is idempotent. A method that yields sends its items one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nova import context, green
from nova.rpc import remote, serving, wire
from nova.rpc.call import Call
from nova.rpc.errors import MessageAbandoned
from nova.rpc.redelivery import MAX_TRIES

LOG = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1

Dispatch = Callable[[Any, str, dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reply` is empty for a cast; `error` says in a line why the method failed, None if it did not."""

    reply: bytes
    error: str | None = None
    tries: int = 1


class Runner:
    """`method_of` finds the method by name for its marks `rpc_idempotent` and `rpc_long_running`; `recover` is
    asked what to answer for a call that had begun when the process died, and may not run again."""

    max_tries = MAX_TRIES

    def __init__(
        self,
        dispatch: Dispatch,
        method_of: Callable[[str], Any] | None = None,
        recover: Dispatch | None = None,
    ) -> None:
        self._dispatch = dispatch
        self._method_of = method_of or (lambda name: None)
        self._recover = recover
        self._marks: dict[str, tuple[bool, bool]] = {}

    def is_idempotent(self, method: str) -> bool:
        return self._marks_of(method)[0]

    def is_long_running(self, method: str) -> bool:
        return self._marks_of(method)[1]

    def _marks_of(self, name: str) -> tuple[bool, bool]:
        known = self._marks.get(name)
        if known is not None:
            return known
        method = self._method_of(name)
        marks = (
            bool(getattr(method, "rpc_idempotent", False)),
            bool(getattr(method, "rpc_long_running", False)),
        )
        if method is not None:  # names come from outside: remember those that exist, not those that are tried
            self._marks[name] = marks
        return marks

    def run(self, call: Call, send_item: Callable[[bytes], None]) -> Outcome:
        """Never raises, except for a greenlet that is killed."""
        outcome = self._try(call, self._dispatch, send_item, 1)
        if call.request.msg_id is not None or outcome.error is None:
            return outcome
        delay_s = RETRY_FIRST_S
        while outcome.error is not None and outcome.tries < MAX_TRIES and self.is_idempotent(call.method):
            green.sleep(delay_s)
            delay_s *= 4
            outcome = self._try(call, self._dispatch, send_item, outcome.tries + 1)
        return outcome

    def recover(self, call: Call) -> Outcome:
        """What the service's own recovery answers; without one the call is abandoned."""
        if self._recover is None:
            return self.abandoned(call)
        return self._try(call, self._recover, lambda item: None, 1)

    def abandoned(self, call: Call, reason: str = "its process died while it ran") -> Outcome:
        text = f"{call.method}: {reason}; how far it came is not known"
        LOG.error("%s", text)
        return self._failed(call, MessageAbandoned(text), MAX_TRIES)

    def _try(self, call: Call, function: Dispatch, send_item: Callable[[bytes], None], tries: int) -> Outcome:
        request = call.request
        is_call = request.msg_id is not None
        serving.begin(serving.Serving(request.unique_id, request.deadline, request.depth))
        try:
            caller = context.RequestContext.from_dict(request.context)
            with context.use(caller):
                result = function(caller, request.method, request.args)
                if isinstance(result, Iterator):
                    return Outcome(_send_all(result, send_item) if is_call else _drain(result), None, tries)
            return Outcome(wire.encode_result(result) if is_call else b"", None, tries)
        except green.GreenletExit:
            raise
        except BaseException as error:  # a Timeout or SystemExit of the method is its failure, not ours
            if not is_call:
                LOG.exception("%s failed", call.method)
            return self._failed(call, error, tries)

    def _failed(self, call: Call, error: BaseException, tries: int) -> Outcome:
        failure = remote.describe(error)
        reply = wire.encode_failure(failure) if call.request.msg_id is not None else b""
        return Outcome(reply, f"{failure[0]}: {failure[1]}", tries)


def _send_all(items: Iterator[Any], send_item: Callable[[bytes], None]) -> bytes:
    count = 0
    for count, item in enumerate(items, 1):
        send_item(wire.encode_result(item, more=count - 1))
    return wire.encode_ending(count)


def _drain(items: Iterator[Any]) -> bytes:
    for _ in items:
        pass
    return b""
