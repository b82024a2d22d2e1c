"""A docker-compose file: what of it can run on this host, without containers. Pure; the compose specification.

A service that is built from source here and says its command can be run; an image from elsewhere cannot.
"""

from __future__ import annotations

import re
from typing import Any

from novad.client.carry import yaml
from novad.client.carry.draft import Carried, Draft, command_keys, environment, literal, service_name

CONDITIONS = {
    "service_started": ":started",
    "service_healthy": ":ready",
    "service_completed_successfully": ":done",
}
RESTART = {"always": "always", "unless-stopped": "always", "on-failure": "on-failure", "no": "no"}
# Of no consequence without containers.
SILENT = {"build", "image", "container_name", "init", "tty", "stdin_open", "hostname"}
CARRIED = {"command", "entrypoint", "environment", "env_file", "depends_on", "working_dir", "ports", "healthcheck",
           "restart", "stop_signal", "stop_grace_period", "scale", "deploy", "profiles"}  # fmt: skip


# A $ of compose: itself, a variable with perhaps a default, a variable.
VARIABLE = re.compile(r"\$\$|\$\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)")


def read(text: str) -> Carried:
    """The services. Raises `yaml.CannotRead`."""
    document = yaml.load(text)
    table = document.get("services") if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise yaml.CannotRead(1, "there are no `services`")
    services, remarks = [], []
    for name, item in table.items():
        item = item if isinstance(item, dict) else {}
        if "command" not in item and "entrypoint" not in item:
            what = f"image {item['image']}" if "image" in item else "its command is in a Dockerfile"
            remarks.append(f"{name}: {what}; run it yourself, or give it a command")
            continue
        if "image" in item and "build" not in item:
            remarks.append(f"{name}: its command was for image {item['image']}; is the program installed here?")
        services.append(Draft(service_name(name), _keys(item)))
        remarks += [f"{name}: {key}" for key in item if key not in CARRIED | SILENT]
    remarks += [key for key in document if key not in ("services", "version", "name")]
    return Carried("the compose file", tuple(services), remarks=tuple(remarks))


def spelled(text: str) -> str:
    """`text` with compose's variables as novad spells them; they are of the shell that runs `up` there as here."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            # Before a brace it would be the beginning of something of ours.
            return "$$" if text[match.end() :].startswith("{") else "$"
        return f"${{env.{match['braced'] or match['bare']}:-{match['default'] or ''}}}"

    parts, at = [], 0
    for match in VARIABLE.finditer(text):
        parts += [literal(text[at : match.start()]), one(match)]
        at = match.end()
    return "".join([*parts, literal(text[at:])])


def _keys(item: dict[str, Any]) -> dict[str, Any]:
    keys = _command(item)
    if item.get("environment"):
        keys["env"] = environment(item["environment"], spelled)
    if item.get("env_file"):
        keys["env_files"] = [_path(entry) for entry in _list(item["env_file"])]
    after = _after(item.get("depends_on") or {})
    keys |= {"after": after} if after else {}
    ports = _ports(item.get("ports") or [])
    keys |= {"ports": ports} if ports else {}
    keys |= _health(item.get("healthcheck") or {})
    if "restart" in item:
        keys["restart"] = RESTART.get(str(item["restart"]).partition(":")[0].lower().replace("false", "no"), "no")
    stop = {"signal": str(item["stop_signal"]).removeprefix("SIG")} if "stop_signal" in item else {}
    stop |= {"timeout": str(item["stop_grace_period"])} if "stop_grace_period" in item else {}
    keys |= {"stop": stop} if stop else {}
    replicas = item.get("scale") or (item.get("deploy") or {}).get("replicas")
    if replicas and int(replicas) > 1:
        # Two of them cannot listen on one port of this host.
        keys |= {"replicas": int(replicas)} | (
            {"ports": {name: f"{n}+" for name, n in ports.items()}} if ports else {}
        )
    return keys | ({"autostart": False} if item.get("profiles") else {})


def _command(item: dict[str, Any]) -> dict[str, Any]:
    """The entrypoint with the command behind it; compose gives neither to a shell."""
    words = [*_words(item.get("entrypoint")), *_words(item.get("command"))]
    if len(words) == 1 and isinstance(words[0], str) and not isinstance(item.get("command"), list):
        return command_keys(words[0]) | {"command": spelled(words[0].strip())}
    return {"command": [spelled(str(word)) for word in words]}


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [str(value)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(entry: Any) -> str:
    if not isinstance(entry, dict):
        return spelled(str(entry))
    return spelled(str(entry.get("path"))) + ("" if entry.get("required", True) else "?")


def _after(value: Any) -> list[str]:
    if isinstance(value, list):
        return [service_name(str(name)) for name in value]
    return [
        service_name(name) + CONDITIONS.get((how or {}).get("condition", ""), "") for name, how in value.items()
    ]


def _ports(value: list[Any]) -> dict[str, Any]:
    """The ports on this host; the first is called http, the others by their numbers."""
    found: dict[str, Any] = {}
    for entry in value:
        published = entry.get("published", entry.get("target")) if isinstance(entry, dict) else str(entry)
        parts = str(published).partition("/")[0].split(":")
        number = parts[-2] if len(parts) > 1 else parts[-1]
        if number.isdigit():
            found["http" if not found else f"p{number}"] = int(number)
    return found


def _health(check: dict[str, Any]) -> dict[str, Any]:
    test = check.get("test")
    if not test or check.get("disable") or test == ["NONE"]:
        return {}
    if isinstance(test, str):
        words = ["sh", "-c", test]
    elif test[0] == "CMD-SHELL":
        words = ["sh", "-c", *map(str, test[1:])]
    else:
        words = [str(word) for word in (test[1:] if test[0] == "CMD" else test)]
    return {"ready": {"exec": [spelled(word) for word in words]}}
