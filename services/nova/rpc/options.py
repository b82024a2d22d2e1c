"""The flags of RPC, and the broker's URL with its credentials.

The password file is read at every connect: a broker that starts anew may have written another password.
"""

from __future__ import annotations

import socket
import urllib.parse
from dataclasses import dataclass, field

from nova import flags

FLAGS = flags.FLAGS

flags.DEFINE_float(
    "rpc_response_timeout", 60.0, "seconds of silence after which a call gives up", mutable=True, least=0.01
)
flags.DEFINE_float(
    "rpc_call_limit", 3600.0, "seconds after which a call ends even if its method still runs", least=0.01
)
flags.DEFINE_float(
    "rpc_heartbeat", 30.0, "seconds; a broker or service silent for twice as long is gone", least=0
)
flags.DEFINE_float(
    "rpc_queue_expires", 3600.0, "seconds after which the queue of a vanished host is deleted", least=1
)
flags.DEFINE_list(
    "allowed_rpc_exception_modules",
    ["nova.exception", "nova.rpc.errors"],
    "modules whose exceptions are raised by `call` as what they were; all others arrive as RemoteError",
)
flags.DEFINE_enum(
    "rpc_transport",
    "auto",
    ("auto", "fast", "kombu"),
    "auto: own codec for amqp://, kombu for every other broker URL",
)
flags.DEFINE_bool("fake_rabbit", False, "calls stay inside this process, no broker is used")
flags.DEFINE_bool("rpc_journal", True, "keep calls to one host in a journal, so that each takes effect once")


# py-amqp has the kernel end a connection whose peer takes nothing for one second, which is what a broker does that
# holds its publishers. Whether the broker is alive, heartbeats tell. 0: the kernel's own limit (tcp(7)).
SOCKET_SETTINGS = {socket.TCP_USER_TIMEOUT: 0}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and who we are there."""

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    virtual_host: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def broker_address() -> Address:
    """The address that the flags give now. Raises `OSError` when the password file cannot be read."""
    parts = urllib.parse.urlsplit(FLAGS.broker)
    user, password = parts.username, parts.password
    netloc = parts.netloc
    if user is None and parts.scheme in ("amqp", "amqps"):
        user, password = _credentials()
        quoted = urllib.parse.quote(password, safe="")
        netloc = f"{user}:{quoted}@{parts.netloc}"
    url = urllib.parse.urlunsplit(parts._replace(netloc=netloc))
    virtual_host = urllib.parse.unquote(parts.path[1:]) or "/"
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    user, password = urllib.parse.unquote(user or ""), urllib.parse.unquote(password or "")
    return Address(url, parts.scheme, parts.hostname or "", port, user, password, virtual_host)


def _credentials() -> tuple[str, str]:
    """User `nova` with the password of the file; guest where there is no file."""
    path = FLAGS.broker_password_file
    if path:
        try:
            with open(path, encoding="utf-8") as stream:
                return "nova", stream.read().strip()
        except FileNotFoundError:
            pass
    return "guest", "guest"
