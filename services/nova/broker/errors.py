"""What the broker answers when a client asks for something wrong: AMQP reply codes with RabbitMQ's texts.

A fault is raised where it is found and becomes channel.close or connection.close at the connection's border. The
code decides which: the specification (section 1.2) calls the codes below `hard`, and they end the connection.
"""

from __future__ import annotations

from nova.broker import protocol
from nova.broker.properties import MalformedHeader

NO_ROUTE = 312
CONNECTION_FORCED = 320
ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
FRAME_ERROR = 501
SYNTAX_ERROR = 502
COMMAND_INVALID = 503
CHANNEL_ERROR = 504
UNEXPECTED_FRAME = 505
RESOURCE_ERROR = 506
NOT_ALLOWED = 530
NOT_IMPLEMENTED = 540
INTERNAL_ERROR = 541

NAMES = {
    NO_ROUTE: "NO_ROUTE",
    CONNECTION_FORCED: "CONNECTION_FORCED",
    ACCESS_REFUSED: "ACCESS_REFUSED",
    NOT_FOUND: "NOT_FOUND",
    RESOURCE_LOCKED: "RESOURCE_LOCKED",
    PRECONDITION_FAILED: "PRECONDITION_FAILED",
    FRAME_ERROR: "FRAME_ERROR",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    COMMAND_INVALID: "COMMAND_INVALID",
    CHANNEL_ERROR: "CHANNEL_ERROR",
    UNEXPECTED_FRAME: "UNEXPECTED_FRAME",
    RESOURCE_ERROR: "RESOURCE_ERROR",
    NOT_ALLOWED: "NOT_ALLOWED",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    INTERNAL_ERROR: "INTERNAL_ERROR",
}
HARD = frozenset(
    (
        CONNECTION_FORCED,
        FRAME_ERROR,
        SYNTAX_ERROR,
        COMMAND_INVALID,
        CHANNEL_ERROR,
        UNEXPECTED_FRAME,
        NOT_ALLOWED,
        NOT_IMPLEMENTED,
        INTERNAL_ERROR,
    )
)


class AmqpFault(Exception):
    """A client's mistake, or a limit it met: a reply code and the text it is told.

    `method` is the number of the method to blame; None means that of the frame in which the fault was found.
    """

    def __init__(self, code: int, text: str, method: int | None = None) -> None:
        super().__init__(code, text)
        self.code = code
        self.method = method
        self.text = f"{NAMES[code]} - {text}"

    def close_arguments(self, method: int) -> bytes:
        """The arguments of channel.close and connection.close; a text too long for them is cut between characters."""
        text = self.text.encode()[:255].decode(errors="ignore")
        return protocol.U16.pack(self.code) + protocol.shortstr(text) + protocol.U32.pack(method)

    @property
    def is_hard(self) -> bool:
        return self.code in HARD


CLIENT_ERRORS = (AmqpFault, protocol.MalformedArguments, protocol.MalformedFrame, MalformedHeader)


def fault_of(error: Exception, kind: int, payload: bytes) -> AmqpFault:
    """What a client is told whose frame could not be served for `error`, one of `CLIENT_ERRORS`."""
    if isinstance(error, AmqpFault):
        fault = error
    elif isinstance(error, protocol.MalformedArguments):
        fault = AmqpFault(FRAME_ERROR, f"cannot decode {protocol.describe_octets(payload[4:])}")
    elif isinstance(error, protocol.MalformedFrame):
        fault = AmqpFault(FRAME_ERROR, str(error), 0)
    else:
        fault = AmqpFault(SYNTAX_ERROR, str(error))
    if fault.method is None:
        fault.method = protocol.method_at_fault(kind, payload)
    return fault


class JournalError(Exception):
    """The journal cannot be opened or read; the message says which file and why."""
