"""A pyproject.toml: its console scripts, proposed as services. Pure.

Nothing in the file says which of them run on and which end at once, so none is started until somebody asks for it.
"""

from __future__ import annotations

import tomllib
from typing import Any

from novad.client.carry.draft import Carried, Draft, service_name

NAME = "pyproject.toml"
UNDECIDED = (
    "which of them run on: each is started when it is named, or at `up` once its autostart = false is removed"
)


def read(text: str) -> Carried:
    """The scripts of [project.scripts] and [tool.poetry.scripts]. Raises `ValueError`."""
    whole = tomllib.loads(text)
    names = [*_scripts(whole.get("project")), *_scripts(_table(_table(whole.get("tool")).get("poetry")))]
    services = (
        Draft(service_name(name), {"command": [name], "autostart": False}) for name in dict.fromkeys(names)
    )
    return Carried(NAME, tuple(services), remarks=(UNDECIDED,))


def _scripts(table: Any) -> list[str]:
    return list(_table(_table(table).get("scripts")))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
