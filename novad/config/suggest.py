"""Did you mean: near names, and what neighbouring tools call our keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What another tool calls it -> (what to write here, who calls it so). Used for hints only, never accepted.
ALIASES: dict[str, tuple[str, str]] = {
    "autorestart": ("restart", "supervisor"),
    "availability": ("restart", "process-compose"),
    "cmd": ("command", ""),
    "deps": ("after", ""),
    "depend_on": ("after", ""),
    "depends": ("after", ""),
    "depends_on": ("after", "docker compose"),
    "dir": ("cwd", ""),
    "directory": ("cwd", "supervisor"),
    "disabled": ("autostart = false", "process-compose"),
    "entrypoint": ("command", "docker compose"),
    "env_file": ("env_files", "docker compose"),
    "environment": ("env", "docker compose"),
    "exec": ("command", ""),
    "execstart": ("command", "systemd"),
    "give_up": ("give_up_after", ""),
    "healthcheck": ("health", "docker compose"),
    "instances": ("replicas", "pm2"),
    "liveness_probe": ("health", "process-compose"),
    "max_restarts": ("give_up_after", ""),
    "numprocs": ("replicas", "supervisor"),
    "one_shot": ("oneshot", ""),
    "priority": ("after", "supervisor"),
    "process": ("services", ""),
    "processes": ("services", "process-compose"),
    "profiles": ("profile", "docker compose"),
    "program": ("services", "supervisor"),
    "readiness_probe": ("ready", "process-compose"),
    "ready_log_line": ("ready = { log = ... }", "process-compose"),
    "requires": ("after", "systemd"),
    "restart_policy": ("restart", "docker compose"),
    "run": ("command", ""),
    "scale": ("replicas", "docker compose"),
    "startretries": ("give_up_after", "supervisor"),
    "startsecs": ("ready_after", "supervisor"),
    "stop_grace_period": ("stop = { timeout = ... }", "docker compose"),
    "stop_signal": ("stop = { signal = ... }", "docker compose"),
    "stopsignal": ("stop = { signal = ... }", "supervisor"),
    "stopwaitsecs": ("stop = { timeout = ... }", "supervisor"),
    "tty": ("pty", "docker compose"),
    "ulimits": ("limits", "docker compose"),
    "wait_for": ("after", ""),
    "wants": ("after", "systemd"),
    "workdir": ("cwd", ""),
    "working_dir": ("cwd", "docker compose"),
    "working_directory": ("cwd", "systemd"),
}

# Keys that have no counterpart here, and why.
ABSENT: dict[str, str] = {
    "build": "novad runs programs, not container images",
    "image": "novad runs programs, not container images",
    "rpc": "a service says it is ready itself: `ready = { notify = true }`",
    "stderr_logfile": "all output is kept in .novad/logs; `novad logs` shows it",
    "stdout_logfile": "all output is kept in .novad/logs; `novad logs` shows it",
    "user": "everything runs as the user who starts novad",
    "volumes": "novad runs programs, not container images",
    "within": "`give_up_after` counts failures in a row; `backoff.reset_after` of ready forgets them",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely means."""
    by_folded = {item.lower().replace("-", "_"): item for item in known}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help lines for an unknown `name`: the nearest known one, or all where they are few."""
    choices = list(known)
    near = nearest(name, choices)
    if near is not None:
        return (f"did you mean `{near}`?",)
    if 0 < len(choices) <= 12:
        return ("known: " + ", ".join(f"`{choice}`" for choice in choices),)
    return ()


def for_key(key: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help lines for an unknown configuration key."""
    choices = list(known)
    folded = key.lower().replace("-", "_")
    if folded in ABSENT and folded not in choices:
        return (ABSENT[folded],)
    if (meant := counterpart(key, choices)) is not None:
        _, tool = ALIASES[folded]
        return (f"did you mean `{meant}`?" + (f" (`{key}` is what {tool} calls it)" if tool else ""),)
    near = nearest(key, choices)
    if near is None and (alias := nearest(key, ALIASES)) and (meant := counterpart(alias, choices)):
        return (f"did you mean `{meant}`?",)
    return did_you_mean(key, choices)


def counterpart(key: str, known: Iterable[str]) -> str | None:
    """What to write here for a key of another tool, if `known` has it."""
    ours, _ = ALIASES.get(key.lower().replace("-", "_"), ("", ""))
    return ours if ours and ours.split()[0] in known else None
