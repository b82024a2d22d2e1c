"""The compiled cluster, as the daemon receives it.

The configuration compiler (`novad.config`) makes these values from text; the daemon runs them and never reads
nova.toml itself. Everything is resolved: no `${...}` is left, names are process names (`compute.2`), times are
seconds, sizes are bytes. `to_json` and `from_json` are inverse; unknown fields are refused, so that a client and
a daemon of different versions say so instead of guessing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from novad.core.errors import WireError

SCHEMA = 1
# Pids, signals, seeds and seconds all stay below; beyond it an int is no float any more.
MAX_NUMBER = 2**53

Condition = Literal["started", "ready", "done"]
Restart = Literal["no", "on-failure", "always"]


@dataclass(frozen=True, slots=True)
class Dependency:
    """`name` is a process name, or the name of a service whose every replica must satisfy the condition."""

    name: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """`url` is whole; ready when the status is in `[status_min, status_max]`."""

    url: str
    status_min: int = 200
    status_max: int = 399


@dataclass(frozen=True, slots=True)
class TcpProbe:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Kinds given together must all hold. `log` is a regular expression searched in each output line.

    `notify_fd` is the number under which the child finds a pipe to write its newline to (s6's notification-fd).
    """

    notify: bool = False
    notify_fd: int | None = None
    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    exec: tuple[str, ...] | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """A repeated check; `failures` in a row restart the process."""

    probe: Probe
    period_s: float = 10.0
    timeout_s: float = 2.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Backoff:
    """Restart delays: at once, then `min_s` doubling to `max_s`; forgotten after `reset_after_s` of ready."""

    min_s: float = 0.25
    max_s: float = 10.0
    reset_after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Stop:
    """`signal` is a name without SIG; after `timeout_s` the whole tree is killed."""

    signal: str = "TERM"
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Log:
    """`path` is absolute; older files are `path.1`, `path.2`... `files` counts the current one too."""

    path: str
    max_bytes: int = 10 * 1024 * 1024
    files: int = 3
    attach: bool = True
    drop: bool = False
    pty: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a process: `fixed` must be exactly this number; else the compiler may choose again.

    `listen` asks novad to bind it and pass the socket (LISTEN_FDS).
    """

    number: int
    fixed: bool = True
    listen: bool = False


@dataclass(frozen=True, slots=True)
class Python:
    """A preloaded service: `target` is `module` or `module:function`, `args` its arguments."""

    target: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """Globs relative to the directory of nova.toml; a matching change restarts the process."""

    globs: tuple[str, ...]
    debounce_s: float = 0.3


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: a service, or one replica of it.

    `argv[0]` is what is executed, searched in the PATH of the process's own environment. `env` is laid over
    `Cluster.env`; None removes a variable. `ready` None means ready after `start_s` of life. `after` holds the
    names of processes or services. `replica` counts from 1. `python` is set where the process may be forked
    from the preloaded template; `argv` then is its equivalent command.
    """

    name: str
    service: str
    replica: int
    argv: tuple[str, ...]
    cwd: str
    log: Log
    env: dict[str, str | None] = field(default_factory=dict)
    after: tuple[Dependency, ...] = ()
    restart_with: tuple[str, ...] = ()
    ready: Probe | None = None
    ready_timeout_s: float = 30.0
    start_s: float = 1.0
    health: Health | None = None
    restart: Restart = "on-failure"
    oneshot: bool = False
    autostart: bool = True
    backoff: Backoff = Backoff()
    give_up_after: int = 5
    stop: Stop = Stop()
    reload_signal: str = "HUP"
    ports: dict[str, Port] = field(default_factory=dict)
    url: str | None = None
    groups: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    nice: int = 0
    python: Python | None = None
    watch: Watch | None = None
    watchdog_s: float | None = None
    description: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that one daemon runs.

    `config` is the real path of nova.toml, `dir` its directory, `files` all files that were read, `files_absent`
    those that would have been, such as nova.local.toml, `files_globs` the patterns that `include` reads all matches of.
    `run_dir` is short and private (sockets, locks), `state_dir` is `.novad` beside nova.toml. `env` is the environment
    that every process starts from. `digest` identifies the configuration text, so that a client can tell that the
    files changed since; `files_digest` is that of `files` alone, see `novad.core.texts`. `preload` lists modules for
    the template.
    `secrets` are globs of variables whose values are shown nowhere, besides those in `novad.core.secret`.
    `overrides` and `scale` are what `up` was told on its command line, for the next compilation to repeat.
    """

    project: str
    namespace: str
    config: str
    dir: str
    run_dir: str
    state_dir: str
    env: dict[str, str]
    processes: tuple[ProcessSpec, ...]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    files_absent: tuple[str, ...] = ()
    files_globs: tuple[str, ...] = ()
    profile: str = ""
    digest: str = ""
    files_digest: str = ""
    preload: tuple[str, ...] = ()
    on_crash: Literal["restart", "stop"] = "restart"
    secrets: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    overrides: dict[str, str] = field(default_factory=dict)
    scale: dict[str, int] = field(default_factory=dict)
    schema: int = SCHEMA


def to_json(value: Any) -> Any:
    """The plain JSON value of a spec; fields that hold their default are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for spec_field in dataclasses.fields(value):
            item = getattr(value, spec_field.name)
            if not _is_default(spec_field, item):
                out[spec_field.name] = to_json(item)
        return out
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def _is_default(spec_field: dataclasses.Field[Any], item: Any) -> bool:
    if spec_field.default is not dataclasses.MISSING:
        return bool(item == spec_field.default)
    if spec_field.default_factory is not dataclasses.MISSING:
        return bool(item == spec_field.default_factory())
    return False


def cluster_from_json(data: Any) -> Cluster:
    """The inverse of `to_json` for a cluster. Raises `WireError` where the value has another shape."""
    cluster = _build(Cluster, data, "cluster")
    assert isinstance(cluster, Cluster)
    if cluster.schema != SCHEMA:
        raise WireError(
            f"the cluster has schema {cluster.schema}, this daemon speaks {SCHEMA}",
            "novad down, then novad up with the new version",
        )
    return cluster


def process_from_json(data: Any) -> ProcessSpec:
    """The inverse of `to_json` for one process. Raises `WireError`."""
    process = _build(ProcessSpec, data, "process")
    assert isinstance(process, ProcessSpec)
    return process


_hints: dict[type, dict[str, Any]] = {}


def _build(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        return _build(kinds[0], data, where)
    if origin is Literal:
        _require(data in args, where, f"one of {args}", data)
        return data
    if origin is tuple:
        _require(isinstance(data, (list, tuple)), where, "an array", data)
        return tuple(_build(args[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is dict:
        _require(isinstance(data, dict), where, "an object", data)
        return {str(key): _build(args[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), data, where)
    if kind is float:
        _require(isinstance(data, (int, float)) and not isinstance(data, bool), where, "a number", data)
        _require(abs(data) <= MAX_NUMBER, where, f"a number up to {MAX_NUMBER}", "more")
        return float(data)
    _require(isinstance(data, kind) and (kind is bool or not isinstance(data, bool)), where, kind.__name__, data)
    return data


def _build_dataclass(kind: type, data: Any, where: str) -> Any:
    _require(isinstance(data, dict), where, "an object", data)
    hints = _hints.get(kind)
    if hints is None:
        hints = _hints[kind] = typing.get_type_hints(kind)
    unknown = set(data) - set(hints)
    _require(not unknown, where, "known fields only", sorted(unknown))
    values = {key: _build(hints[key], item, f"{where}.{key}") for key, item in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise WireError(f"{where}: {error}") from error


def _require(holds: bool, where: str, wanted: str, got: Any) -> None:
    if not holds:
        raise WireError(f"{where}: expected {wanted}, got {got!r:.200}")
