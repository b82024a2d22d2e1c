"""The cluster that runs, and the one that nova.toml and the command line describe now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novad.client.app import App
from novad.core.errors import UsageError
from novad.core.spec import Cluster, cluster_from_json

RELOAD_ANSWER_S = 600.0


def running_cluster(app: App) -> Cluster | None:
    """What the daemon runs, where one does."""
    link = app.link_or_none()
    if link is None:
        return None
    with link:
        data = link.request("spec")["cluster"]
    return None if data is None else cluster_from_json(data)


def compiled(app: App, scale: tuple[str, ...], env: tuple[str, ...], running: Cluster | None) -> Cluster:
    """The cluster as nova.toml and the command line say.

    Where one runs, its ports, the shell environment it was started with and what its command line said stay:
    only then does a comparison show what was changed in the files.
    """
    overrides = dict(running.overrides) if running else {}
    overrides |= dict(pair(text, "-e", "LOG_LEVEL=debug") for text in env)
    taken = running.scale if running else {}
    asked = {}
    for text in scale:
        name, number = pair(text, "--scale", "compute=3")
        if not number.isdigit():
            raise UsageError(f"--scale {text}: `{number}` is not a number of replicas", "--scale compute=3")
        asked[name] = int(number)
    cluster = app.compiler.compile(
        app.place(missing_ok=False),
        profile=app.profile or (running.profile if running else None) or None,
        overrides=overrides,
        taken_ports=taken_ports(running),
        scale=asked,
        taken_scale=taken,
        environ=app.environ,
    )
    cluster = replace(cluster, overrides=overrides, scale={**taken, **asked})
    return cluster if running is None else replace(cluster, env=running.env)


def taken_ports(running: Cluster | None) -> dict[str, int]:
    """`api.http` -> 41377, so that a second `up` and `reload` compile to the numbers that are in use."""
    return {
        f"{item.name}.{name}": port.number
        for item in (running.processes if running else ())
        for name, port in item.ports.items()
    }


def pair(text: str, flag: str, example: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"{flag} {text}: needs NAME=VALUE", f"{flag} {example}")
    return name, value


def is_change(difference: dict[str, Any]) -> bool:
    return bool(difference["added"] or difference["removed"] or difference["changed"])
