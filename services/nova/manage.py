"""nova-manage: what an operator does to a cluster from a shell.

    nova-manage [--state_path=DIR ...] service list
    nova-manage rpc call compute.host1 get_console_output instance_id:=7

Flags of the services come first and say which cluster; then a row of COMMANDS. Results go to stdout, a table or with
`--json` one document; errors are one line on stderr. Exit codes: 0 done, 1 failed, 2 wrong command line, 100 bad flags.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

EXIT_FAILED, EXIT_USAGE = 1, 2

Row = dict[str, Any]


@dataclass(frozen=True)
class Argument:
    """One argument of a command; `options` are those of `ArgumentParser.add_argument`."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """`nova-manage NOUN VERB`; `action` returns what is printed: rows, a row, a sentence, or None."""

    noun: str
    verb: str
    help: str
    action: Callable[[argparse.Namespace], Any]
    arguments: tuple[Argument, ...] = ()
    prints_json: bool = False  # also without --json: the result may be anything


def argument(name: str, help: str, **options: Any) -> Argument:
    return Argument(name, {"help": help, **options})


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """The exit code of one command."""
    from nova import green

    green.patch()
    from nova import exception, flags
    from nova.combined import find_broker

    given, words = _split(argv)
    try:
        flags.FLAGS(["nova-manage", *given], section="manage")
        options = _parser().parse_args(_with_verb(words))
        find_broker()
        _print(options.action(options), options.json or options.prints_json)
    except SystemExit as stop:
        return int(stop.code or 0)
    except exception.Error as error:
        print(f"nova-manage: {_words(error, '--full' in words)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_FAILED
    finally:
        _end_calls()
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(flags of the services, which come first, and the command)."""
    from nova import flags

    given, words = [], list(argv)
    while words and words[0].startswith("--") and words[0] != "--help":
        word = words.pop(0)
        given.append(word)
        is_switch = word[2:].removeprefix("no") in ("verbose", "fake_rabbit") or word[2:] not in flags.FLAGS
        if "=" not in word and not is_switch and words:
            given.append(words.pop(0))
    return given, words


def _with_verb(words: list[str]) -> list[str]:
    """`rpc TOPIC METHOD` is `rpc call TOPIC METHOD`; novad says the first."""
    verbs = {command.verb for command in COMMANDS if command.noun == "rpc"}
    if words[:1] == ["rpc"] and len(words) > 2 and words[1] not in verbs:
        return ["rpc", "call", *words[1:]]
    return words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nova-manage",
        description="Manage a nova cluster. Flags of the services, such as --state_path=DIR, come first.",
    )
    nouns = parser.add_subparsers(metavar="NOUN", required=True)
    verbs: dict[str, Any] = {}
    for command in COMMANDS:
        if command.noun not in verbs:
            commands = [row for row in COMMANDS if row.noun == command.noun]
            help = ", ".join(row.verb for row in commands)
            noun = nouns.add_parser(command.noun, help=help, description=f"{command.noun}: {help}")
            verbs[command.noun] = noun.add_subparsers(metavar="VERB", required=True)
        verb = verbs[command.noun].add_parser(command.verb, help=command.help, description=command.help)
        for item in command.arguments:
            verb.add_argument(item.name, **item.options)
        verb.add_argument("--json", action="store_true", help="print one JSON document")
        verb.set_defaults(action=command.action, verb=command.verb, prints_json=command.prints_json)
    return parser


def _words(error: Exception, is_full: bool) -> str:
    """What went wrong; of a method that raised also where in its service, and with `is_full` the whole traceback."""
    from nova import rpc

    remote = error if isinstance(error, rpc.RemoteError) else error.__cause__
    if not isinstance(remote, rpc.RemoteError):
        return str(error) or type(error).__name__
    said = f"{remote.exc_type}: {remote.value}" if remote is error else str(error) or remote.exc_type
    if is_full:
        return f"{said}\n{remote.traceback.rstrip()}"
    # Of a class that callers know, the text is the answer; where in the service it was raised is nobody's business.
    frame = _last_own_frame(remote.traceback) if remote is error else ""
    return f"{said}\n  at {frame}\n  --full shows the whole traceback" if frame else said


# One frame of a traceback: the file, the line, the function, and the line's text.
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)\n(?:    (.*)\n)?', re.MULTILINE)
_OF_OTHERS = re.compile(r"/(site|dist)-packages/(?!nova/)|/lib/python3[.\d]*/|^<")


def _last_own_frame(text: str) -> str:
    """`/src/nova/compute/manager.py:120 in run_instance: raise ...`; "" where all of it is of libraries."""
    own = [match for match in _FRAME.finditer(text) if not _OF_OTHERS.search(match[1])]
    if not own:
        return ""
    path, line, function, source = own[-1].groups()
    return f"{path}:{line} in {function}" + (f": {source.strip()}" if source else "")


def _end_calls() -> None:
    """Close the connection to the broker, if there was one."""
    rpc = sys.modules.get("nova.rpc")
    if rpc is not None:
        rpc.cleanup()


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=2, default=str))
    elif isinstance(value, dict):
        print(table([value]), end="")
    elif isinstance(value, list):
        print(table(value), end="")
    elif value is not None:
        print(value)
    sys.stdout.flush()


def table(rows: Sequence[Row]) -> str:
    """Rows under the names of their keys, in columns; nothing for no rows."""
    if not rows:
        return ""
    lines = [[_cell(value) for value in row.values()] for row in rows]
    names = [name.replace("_", " ").capitalize() for name in rows[0]]
    widths = [max(len(line[column]) for line in [names, *lines]) for column in range(len(names))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [names, *lines]
    ]
    return "".join(f"{line.rstrip()}\n" for line in shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


# Services


def _service_list(options: argparse.Namespace) -> list[Row]:
    from nova import servicegroup
    from nova.db import services, session

    session.sync()
    return [
        {
            "binary": row.binary,
            "host": row.host,
            "zone": row.availability_zone,
            "status": "disabled" if row.disabled else "enabled",
            "alive": ":-)" if servicegroup.service_is_up(row) else "XXX",
            "state": row.state,
            "seen": f"{row.age_s:.0f} s ago",
            "in_flight": row.inflight,
            "hub_lag_ms": row.hub_lag_ms,
        }
        for row in services.get_all()
    ]


def _service_enable(options: argparse.Namespace) -> str:
    from nova.db import services

    services.set_disabled(options.host, options.binary, options.verb == "disable")
    return f"{options.binary} on {options.host} is {options.verb}d"


# Database, users, networks


def _db_sync(options: argparse.Namespace) -> str:
    from nova.db import session

    session.sync()
    return f"{session.database().url!r} has schema {session.SCHEMA_VERSION}"


def _user_create(options: argparse.Namespace) -> Row:
    from nova.db import session, users

    session.sync()
    with session.begin() as s:
        made = users.create(s, options.name, options.project, is_admin=options.admin)
        return {
            "name": made.name,
            "project": made.project_id,
            "access_key": made.access_key,
            "secret_key": made.secret_key,
        }


def _user_list(options: argparse.Namespace) -> list[Row]:
    from nova.db import session, users

    session.sync()
    with session.read() as s:
        return [
            {"name": row.name, "project": row.project_id, "access_key": row.access_key, "admin": row.is_admin}
            for row in users.get_all(s)
        ]


def _user_delete(options: argparse.Namespace) -> str:
    from nova.db import session, users

    with session.begin() as s:
        users.delete(s, options.name)
    return f"user {options.name} is deleted"


def _network_create(options: argparse.Namespace) -> str:
    from nova.db import networks, session

    session.sync()
    with session.begin() as s:
        made = networks.create(s, options.label, options.cidr)
        return f"network {made.label} {made.cidr} with gateway {made.gateway}"


def _network_list(options: argparse.Namespace) -> list[Row]:
    from nova.db import networks, session

    session.sync()
    with session.read() as s:
        return networks.usage(s)


# Calls and the broker


def _rpc(options: argparse.Namespace) -> Any:
    from nova import rpc
    from nova.context import get_admin_context

    message = {"method": options.method, "args": dict(_value(word) for word in options.values)}
    kind = "cast" if options.cast else "fanout" if options.fanout else options.verb
    if kind == "call":
        return rpc.call(get_admin_context(), options.topic, message, timeout=options.timeout)
    send = rpc.cast if kind == "cast" else rpc.fanout_cast
    send(get_admin_context(), options.topic, message)
    return None


def _value(word: str) -> tuple[str, Any]:
    """`name=text` or `name:=json`. Raises `Invalid`."""
    from nova import exception

    name, equals, text = word.partition("=")
    if not equals or not name.rstrip(":").isidentifier():
        raise exception.Invalid(f"{word!r} is not NAME=TEXT or NAME:=JSON")
    if not name.endswith(":"):
        return name, text
    try:
        return name[:-1], json.loads(text)
    except ValueError as error:
        raise exception.Invalid(f"{word!r}: not JSON: {error}") from None


def _broker(options: argparse.Namespace) -> list[Row]:
    from nova import exception, flags
    from nova.broker import admin, report

    try:
        rows = admin.ask(flags.FLAGS.state_path, options.verb, options.interval)
    except admin.AdminError as error:
        raise exception.Error(str(error)) from error
    return rows if options.json or options.wide else report.brief(options.verb, rows)


_VALUES = (
    argument("topic", "topic, or topic.host"),
    argument("method", "public method of the manager"),
    argument("values", "name=text or name:=json", nargs="*", metavar="NAME=TEXT"),
    argument("--timeout", "seconds of silence to bear", type=float),
    argument("--cast", "do not wait for a result", action="store_true"),
    argument("--fanout", "to every process that listens", action="store_true"),
    argument("--full", "the whole traceback of a method that failed", action="store_true"),
)
_HOST = (argument("host", "name of the host"), argument("binary", "such as nova-compute"))
_BROKER = (
    argument("--interval", "seconds over which rates are taken; 0: none (default: 1)", type=float, default=1.0),
    argument("--wide", "all columns, for a terminal wider than 80", action="store_true"),
)

COMMANDS: tuple[Command, ...] = (
    Command("service", "list", "services, alive :-) or not XXX", _service_list),
    Command("service", "enable", "let a service be chosen again", _service_enable, _HOST),
    Command("service", "disable", "take a service out of scheduling", _service_enable, _HOST),
    Command("db", "sync", "create what is missing of the schema", _db_sync),
    Command(
        "user",
        "create",
        "make a user and show the keys",
        _user_create,
        (
            argument("name", "name of the user"),
            argument("--project", "project (default: the user's name)"),
            argument("--admin", "an administrator", action="store_true"),
        ),
    ),
    Command("user", "list", "users without their secrets", _user_list),
    Command("user", "delete", "delete a user", _user_delete, (argument("name", "name of the user"),)),
    Command(
        "network",
        "create",
        "add a network of addresses for instances",
        _network_create,
        (argument("cidr", "such as 10.1.0.0/24"), argument("--label", "its name", default="private")),
    ),
    Command("network", "list", "networks and how many addresses are free", _network_list),
    Command("rpc", "call", "call a method and print its result as JSON", _rpc, _VALUES, prints_json=True),
    Command("rpc", "cast", "have a method run some time", _rpc, _VALUES),
    Command("rpc", "fanout", "have a method run in every process of a topic", _rpc, _VALUES),
    *(
        Command("broker", kind, f"{kind} of the running nova-broker", _broker, _BROKER)
        for kind in ("queues", "exchanges", "bindings", "connections", "consumers")
    ),
)
