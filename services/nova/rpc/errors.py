"""What can go wrong between a caller and the method it calls, by whose fault it is."""

from __future__ import annotations

from nova import exception


class RpcError(exception.Error):
    """Base of everything here that a caller may see."""


class RPCTimeout(RpcError):
    """Silence for longer than the timeout, or the deadline has passed. Whether the method ran is not known."""


class NoSuchTopic(RpcError):
    """No service has ever listened on the topic (or on that server of it); nothing was run."""


class TopicTooLong(RpcError):
    """A name made of the topic, and of the host where there is one, is longer than a broker takes; nothing was sent."""


class NoSuchMethod(RpcError):
    """The service is there, but has no such public method; nothing was run."""


class MessageAbandoned(RpcError):
    """The method had begun when its process died, and may not run twice: how far it came is not known."""


class RemoteError(RpcError):
    """The method raised. `exc_type` is the class's name, `value` its text, `traceback` the remote traceback."""

    def __init__(self, exc_type: str = "", value: str = "", traceback: str = "") -> None:
        super().__init__(f"{exc_type}: {value}\n{traceback}".rstrip())
        self.exc_type = exc_type
        self.value = value
        self.traceback = traceback


class LinkLost(RpcError):
    """The connection to the broker ended; the link makes another."""


class LinkClosed(RpcError):
    """This process has closed its RPC; nothing more can be sent."""


class MalformedMessage(ValueError):
    """The bytes of a message are no request or reply of this protocol."""
