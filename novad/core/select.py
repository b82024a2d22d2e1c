"""Which processes a user means: a process, a service, a group, a glob, or `all`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from novad.core.errors import NoSuchService
from novad.core.spec import ProcessSpec

ALL = "all"


def select(
    patterns: Sequence[str], specs: Mapping[str, ProcessSpec], groups: Mapping[str, Sequence[str]]
) -> list[str]:
    """The names of the processes meant by `patterns`, in the cluster's order; none given means all.

    Raises `NoSuchService` for a pattern that matches nothing, with the nearest names.
    """
    if not patterns:
        return list(specs)
    wanted: set[str] = set()
    for pattern in patterns:
        found = set(_matches(pattern, specs, groups))
        if not found:
            raise no_such_service(pattern, specs, groups)
        wanted |= found
    return [name for name in specs if name in wanted]


def _matches(
    pattern: str, specs: Mapping[str, ProcessSpec], groups: Mapping[str, Sequence[str]]
) -> Iterable[str]:
    if pattern in specs:
        return [pattern]
    if pattern == ALL:
        return specs
    members = set(groups.get(pattern, ()))
    found = [name for name, spec in specs.items() if spec.service == pattern or spec.service in members]
    if found:
        return found
    return [name for name, spec in specs.items() if fnmatch.fnmatchcase(name, pattern)]


def no_such_service(
    name: str, specs: Mapping[str, ProcessSpec], groups: Mapping[str, Sequence[str]]
) -> NoSuchService:
    """The error for `name`, with a did-you-mean or the list of what there is."""
    known = list(dict.fromkeys([*specs, *(spec.service for spec in specs.values()), *groups, ALL]))
    near = difflib.get_close_matches(name, known, n=2)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif specs:
        shown = list(dict.fromkeys(spec.service for spec in specs.values()))
        hint = f"there are {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}"
    else:
        hint = "no cluster is loaded: novad up"
    return NoSuchService(f"no such service: {name}", hint)
