"""Flags: what an operator may set, and where each value came from.

    flags.DEFINE_integer("report_interval", 10, "seconds between two heartbeats")
    FLAGS(sys.argv)                    # argv[0] is the program's name, as for gflags; returns [argv[0], *rest]
    FLAGS.report_interval

Precedence, low to high: default, TOML file (`--config_file`, NOVA_CONFIG_FILE; a table named like the topic
overrides the top level), environment `NOVA_<NAME>`, command line. A flag may be defined after the parse (the
module of a manager is imported late): it then takes its value from what was given. So an unknown flag is an error
only at `finish()`, which `FLAGS(argv)` calls itself unless `late=True`. `$state_path` in a string stands for the
value of that flag; `$$` is a dollar. Only flags marked `mutable` change on `reload()`.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Sequence
from typing import Any

from nova import exception, flagtypes
from nova.flagtypes import Flag
from nova.flagvalues import FlagValues, objection

__all__ = [
    "DECLARE",
    "FLAGS",
    "DEFINE_bool",
    "DEFINE_enum",
    "DEFINE_float",
    "DEFINE_integer",
    "DEFINE_list",
    "DEFINE_name",
    "DEFINE_string",
    "FlagValues",
    "objection",
]  # fmt: skip

FLAGS = FlagValues()


def DEFINE_string(name: str, default: str | None, help: str, mutable: bool = False, secret: bool = False) -> None:
    FLAGS.define(Flag(name, "string", default, help, flagtypes.parse_string, mutable, secret))


def DEFINE_name(name: str, default: str, help: str) -> None:
    """A string that may not be empty."""
    FLAGS.define(Flag(name, "string", default, help, flagtypes.parse_name))


def DEFINE_integer(
    name: str,
    default: int | None,
    help: str,
    mutable: bool = False,
    secret: bool = False,
    least: int | None = None,
) -> None:
    parse = flagtypes.at_least(flagtypes.parse_integer, least)
    FLAGS.define(Flag(name, "integer", default, help, parse, mutable, secret))


def DEFINE_float(
    name: str,
    default: float | None,
    help: str,
    mutable: bool = False,
    secret: bool = False,
    least: float | None = None,
) -> None:
    parse = flagtypes.at_least(flagtypes.parse_float, least)
    FLAGS.define(Flag(name, "float", default, help, parse, mutable, secret))


def DEFINE_bool(name: str, default: bool | None, help: str, mutable: bool = False, secret: bool = False) -> None:
    FLAGS.define(Flag(name, "bool", default, help, flagtypes.parse_bool, mutable, secret))


def DEFINE_list(name: str, default: list[str], help: str, mutable: bool = False, secret: bool = False) -> None:
    FLAGS.define(Flag(name, "list", default, help, flagtypes.parse_list, mutable, secret))


def DEFINE_enum(
    name: str, default: str | None, values: Sequence[str], help: str, mutable: bool = False, secret: bool = False
) -> None:
    """A string that must be one of `values`."""

    def parse(raw: Any) -> str:
        if raw not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return str(raw)

    kind = f"one of {'|'.join(values)}"
    FLAGS.define(Flag(name, kind, default, help, parse, mutable, secret))


def DECLARE(name: str, module: str) -> None:
    """Say that `module` defines the flag `name`, and import it unless it is defined. Raises `FlagError`."""
    if name not in FLAGS:
        importlib.import_module(module)
    if name not in FLAGS:
        raise exception.FlagError(f"--{name} is not defined by {module}")


def _define_common() -> None:
    DEFINE_bool("help", False, "print all flags and exit")
    DEFINE_bool("dump_flags", False, "print every flag's value and where it came from, and exit")
    DEFINE_string(
        "config_file", None, "TOML file with flags; a table named like the topic overrides the top level"
    )
    DEFINE_name("state_path", "./nova-state", "directory for everything that this cluster keeps")
    DEFINE_name("host", socket.gethostname(), "name of this host in the database and in queue names")
    DEFINE_string("broker", "amqp://127.0.0.1:5672/", "URL of the message broker")
    DEFINE_string("broker_password_file", None, "file with the password of the broker's user nova")
    DEFINE_name("control_exchange", "nova", "topic exchange of all calls")
    DEFINE_string("sql_connection", "sqlite:///$state_path/nova.sqlite", "URL of the database")
    DEFINE_float("report_interval", 10.0, "seconds between two heartbeats", mutable=True, least=0.01)
    DEFINE_float(
        "periodic_interval", 60.0, "seconds between two runs of the periodic tasks", mutable=True, least=0.01
    )
    DEFINE_float(
        "service_down_time",
        60.0,
        "seconds without a heartbeat after which a service is down",
        mutable=True,
        least=0,
    )
    DEFINE_float(
        "drain_timeout", 8.0, "seconds a soft stop waits for what is in flight; 0 waits for ever", least=0
    )
    DEFINE_integer("rpc_thread_pool_size", 1024, "calls that one service runs at the same time", least=1)
    DEFINE_bool("verbose", False, "log debug messages", mutable=True)
    DEFINE_string("node_availability_zone", "nova", "availability zone of this host")
    for topic in ("compute", "network", "scheduler", "volume"):
        name = f"{topic.capitalize()}Manager"
        DEFINE_name(f"{topic}_topic", topic, f"topic on which {topic} listens")
        DEFINE_string(f"{topic}_manager", f"nova.{topic}.manager.{name}", f"class that serves {topic}")
    for topic in ("api", "objectstore"):
        name = "ApiManager" if topic == "api" else "ObjectStoreManager"
        DEFINE_string(
            f"{topic}_manager", f"nova.{topic}.manager.{name}", f"class whose wsgi_app() serves {topic}"
        )


_define_common()
