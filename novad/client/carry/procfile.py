"""A Procfile (foreman, overmind, honcho): `name: command` a line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from novad.client.carry.draft import Carried, Draft, command_keys, service_name

LINE = re.compile(r"^([A-Za-z0-9_.-]+):\s*(.+)$")
PORT = re.compile(r"\$(?:\{PORT\}|PORT\b)")


def read(text: str, siblings: Iterable[str] = ()) -> Carried:
    """The services. `siblings` are the names of the files beside it."""
    services, remarks = [], []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        match = LINE.match(stripped)
        if match:
            services.append(_service(match[1], match[2], ".env" in siblings))
        elif stripped and not stripped.startswith("#"):
            remarks.append(f"line {number}: {stripped}")
    return Carried("Procfile", tuple(services), remarks=tuple(remarks))


def _service(name: str, command: str, has_env_file: bool) -> Draft:
    keys = command_keys(command)
    if name == "release":
        keys["oneshot"] = True
    if PORT.search(command):
        keys |= {"ports": {"http": "auto"}, "env": {"PORT": "${port}"}}
    if has_env_file:
        keys["env_files"] = [".env?"]
    return Draft(service_name(name), keys)
