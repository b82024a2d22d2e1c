"""One child of novad, as far as the host knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from novad.host.hub import Watcher

# The environment variable by which a process says whose it is.
MARK = "NOVAD_ID"


@dataclass(slots=True)
class Child:
    """One incarnation of a process: its leader and what is known of its tree.

    `main` is the process that the leader has named in its stead, by pid and pidfd. `known` are descendants by pid,
    noted before the stop signal, because later they may have cut every tie. `told` is the wait status of an adopted
    leader as its parent told it.
    """

    name: str
    incarnation: int
    pid: int
    pidfd: int
    mark: str
    is_adopted: bool = False
    is_dead: bool = False
    is_reported: bool = False
    main: tuple[int, int, Watcher] | None = None
    is_leaving: bool = False
    is_killing: bool = False
    told: int | None = None
    known: dict[int, int] = field(default_factory=dict)
    watcher: Watcher | None = None
    looks: int = 0
    will_look: bool = False
    ended_ticks: int = 0
    members: dict[int, tuple[int, Watcher]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where the news goes: `on_exit(child, code, signal, leftovers)`, `on_tree_gone(child)`.

    `before_death()` takes in what the dead may still have said.
    """

    on_exit: Callable[[Child, int | None, int | None, bool], None]
    on_tree_gone: Callable[[Child], None]
    before_death: Callable[[], None]
