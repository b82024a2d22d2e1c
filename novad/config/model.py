"""The model of nova.toml: every key, its kind, its default and its manual entry.

The descriptions are the manual (`novad check --explain KEY`) and the hover text of editors (`novad check
--schema`), so neither can drift from what is accepted. What one key cannot know of another (names, cycles, ports)
is checked in `validate`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from novad.config.fields import (
    Boolean,
    Command,
    Count,
    Duration,
    Endpoint,
    Interval,
    Limit,
    Listen,
    LogSize,
    Name,
    Nice,
    OnCrash,
    PassedNumber,
    PortRequest,
    Positive,
    Restart,
    Signal,
    Status,
    Target,
    Text,
    Title,
    Variable,
)
from novad.config.position import Path


class Table(BaseModel):
    """A table of nova.toml; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Ready(Table):
    """When a process counts as ready. Kinds given together must all hold."""

    notify: Boolean = Field(
        default=False,
        description="The service says so: READY=1 on NOTIFY_SOCKET (sd_notify).",
    )
    notify_fd: PassedNumber | None = Field(
        default=None,
        description="The number of a descriptor, 3 to 18, on which the service writes a newline when it is ready (s6).",
    )
    http: Text | None = Field(
        default=None, description='A URL, a path on the first port ("/healthz"), or the name of a port.'
    )
    status: Status = Field(
        default=(200, 399), description="The HTTP status that means ready: a number, or [lowest, highest]."
    )
    tcp: Endpoint | None = Field(
        default=None,
        description='A port name, a port number or "host:port" that accepts.',
    )
    exec: Command | None = Field(default=None, description="A command that exits 0 when the service is ready.")
    log: Text | None = Field(
        default=None,
        description="A regular expression; ready once a line of output matches.",
    )


class Health(Table):
    """A check repeated for as long as a process is ready; failures in a row restart it."""

    http: Text | None = Field(default=None, description="As in `ready`.")
    status: Status = Field(default=(200, 399), description="As in `ready`.")
    tcp: Endpoint | None = Field(default=None, description="As in `ready`.")
    exec: Command | None = Field(default=None, description="As in `ready`.")
    period: Interval = Field(default=10.0, description="The time between two checks.")
    timeout: Interval = Field(default=2.0, description="A check that takes longer has failed.")
    failures: Positive = Field(default=3, description="This many failures in a row restart the process.")


class Backoff(Table):
    """The delay of restarts: the first is immediate, then `min`, doubling up to `max`."""

    min: Duration = Field(default=0.25, description="The delay before the second restart.")
    max: Duration = Field(default=10.0, description="The longest delay.")
    reset_after: Duration = Field(
        default=10.0,
        description='Failures are forgotten after being ready for so long; "0s": as soon as it is ready.',
    )


class Stop(Table):
    """How a process is stopped: the signal, then KILL to its whole process tree."""

    signal: Signal = Field(default="TERM", description="The signal that asks the process to end.")
    timeout: Duration = Field(
        default=10.0,
        description="After this time what is left of the process tree is killed.",
    )


class Signals(Table):
    """Which signals mean what to a service."""

    reload: Signal = Field(
        default="HUP",
        description="The signal that makes the service read its configuration again.",
    )


class Logs(Table):
    """What becomes of the output of a process."""

    attach: Boolean = Field(
        default=True,
        description="Whether `up` and `logs` show it without being asked for it.",
    )
    max: LogSize = Field(
        default=10 * 1024 * 1024,
        description='The log file is rotated at this size, such as "10MiB".',
    )
    keep: Positive = Field(default=3, description="How many log files are kept, the current one included.")
    drop: Boolean = Field(
        default=False,
        description="Drop output, and count it, rather than make the process wait.",
    )


class Watching(Table):
    """Files whose change restarts a process."""

    globs: list[Name] = Field(default_factory=list, description="Globs relative to nova.toml; `**` goes deep.")
    debounce: Duration = Field(default=0.3, description="Changes within this time count as one.")


class Service(Table):
    """A service: one program, run in one or several processes. One string alone is its command."""

    command: Command | None = Field(
        default=None,
        description="What to run. A list is executed as it is; a string is split into words like a shell "
        "would, but no shell runs.",
    )
    shell: Boolean = Field(default=False, description="Give `command`, a string, to /bin/sh -c.")
    python: Target | None = Field(
        default=None,
        description='Instead of `command`: a Python "module" or "module:function". Such a service may be forked '
        "from a template that has the modules of `novad.preload` imported already, which is faster.",
    )
    args: list[Text] = Field(default_factory=list, description="The arguments of a `python` service.")
    preload: Boolean = Field(
        default=True,
        description="false: a `python` service gets an interpreter of its own.",
    )
    cwd: Text | None = Field(
        default=None,
        description="The working directory, relative to nova.toml. Default: its own.",
    )
    env: dict[str, Variable] = Field(
        default_factory=dict, description="Environment variables of this service; false removes one."
    )
    env_files: list[Name] = Field(
        default_factory=list, description='Files of KEY=value lines; "name?" may be missing.'
    )
    after: list[Name] = Field(
        default_factory=list,
        description='The services to wait for. "x:started", "x:ready" or "x:done"; without a suffix :ready where '
        "x has a probe, :done where x is a one-shot, else :started.",
    )
    restart_with: list[Name] = Field(
        default_factory=list, description="Restart this service whenever one of these services restarts."
    )
    ready: Ready | None = Field(
        default=None,
        description="When the service counts as ready: notify, http, tcp, exec, log; all given must hold.",
    )
    ready_timeout: Interval = Field(default=30.0, description="A process that is not ready by then has failed.")
    ready_after: Duration = Field(
        default=1.0,
        description="A service without a probe is ready once it lived this long.",
    )
    health: Health | None = Field(default=None, description="A check that is repeated: http, tcp, exec.")
    watchdog: Interval | None = Field(
        default=None, description="The service sends WATCHDOG=1 at least this often, or it is restarted."
    )
    restart: Restart | None = Field(
        default=None, description='"no", "on-failure" or "always". Default: "on-failure", for a one-shot "no".'
    )
    oneshot: Boolean = Field(
        default=False,
        description="Runs once; exit 0 means done, and what waits for it goes on.",
    )
    autostart: Boolean = Field(default=True, description="false: started only when it is named or needed.")
    backoff: Backoff = Field(default_factory=Backoff, description="The delay of restarts.")
    give_up_after: Positive = Field(
        default=5,
        description="This many failures in a row make it failed; a machine without room for one more process is none.",
    )
    stop: Stop = Field(default_factory=Stop, description="How it is stopped: signal, timeout.")
    signals: Signals = Field(default_factory=Signals, description="Signals by meaning: reload.")
    ports: dict[str, PortRequest] = Field(
        default_factory=dict,
        description='Ports by name: 8774 exactly this one, "auto" a free one (the same one the next time), '
        '"8774?" this one if it is free, "6080+" 6080 for the first replica, 6081 for the second, '
        '"8774!" exactly this one even in `novad run`, which picks free ones otherwise.',
    )
    listen: Listen = Field(
        default=False, description="Bind the ports (all, or those named) and pass them as sockets (LISTEN_FDS)."
    )
    url: Text | None = Field(
        default=None,
        description="Where the service is, for you and for ${services.NAME.url}.",
    )
    replicas: Count | None = Field(
        default=None,
        description="How many processes; they are called NAME.1, NAME.2...",
    )
    groups: list[Name] = Field(default_factory=list, description="Groups that this service belongs to.")
    limits: dict[str, Limit] = Field(
        default_factory=dict, description='Resource limits by name: nofile, core, as... "unlimited" lifts one.'
    )
    nice: Nice = Field(default=0, description="The niceness, from -20 to 19.")
    pty: Boolean = Field(default=False, description="Run it on a pseudo terminal, for programs that ask for one.")
    logs: Logs = Field(default_factory=Logs, description="Its log file: attach, max, keep, drop.")
    watch: Watching | None = Field(
        default=None, description="Globs, relative to nova.toml; a change of such a file restarts the service."
    )
    description: Text = Field(default="", description="A few words for people.")


class Novad(Table):
    """The project as a whole."""

    name: Title | None = Field(
        default=None,
        description="The name of the project. Default: that of its directory.",
    )
    requires: Name | None = Field(
        default=None,
        description='The versions of novad that will do, such as ">=1.0,<2".',
    )
    include: list[Name] = Field(
        default_factory=list, description="More files, or globs of files; they may add, not redefine."
    )
    env_files: list[Name] = Field(
        default_factory=list, description='Files of KEY=value lines for every service; "name?" may be missing.'
    )
    preload: list[Target] = Field(
        default_factory=list,
        description="Modules to import once for all `python` services, which are then forked from there. Of "
        '"module:function" the function is called as well.',
    )
    on_crash: OnCrash = Field(default="restart", description='"stop": the first crash stops the whole cluster.')
    secrets: list[Name] = Field(
        default_factory=list,
        description='Variables, or globs of them ("*_DSN"), whose values novad shows nowhere; those whose name says so '
        "(PASSWORD, TOKEN, KEY and the like) need not be listed.",
    )
    call: Command | None = Field(default=None, description="The command that `novad call` runs.")


class Profile(Table):
    """An overlay, chosen with --profile or NOVAD_PROFILE."""

    skip: list[Name] = Field(default_factory=list, description="Services that this profile leaves out.")
    on_crash: OnCrash | None = Field(default=None, description="As in [novad].")
    unset: list[Name] = Field(default_factory=list, description="Keys to remove, such as services.api.env.DEBUG.")
    novad: Novad = Field(default_factory=Novad, description="Laid over [novad].")
    env: dict[str, Variable] = Field(default_factory=dict, description="Laid over [env].")
    defaults: Service = Field(default_factory=Service, description="Laid over [defaults].")
    services: dict[str, Service] = Field(default_factory=dict, description="Laid over [services].")
    groups: dict[str, list[Name]] = Field(default_factory=dict, description="Laid over [groups].")


class File(Table):
    """nova.toml."""

    novad: Novad = Field(
        default_factory=Novad,
        description="What concerns the whole project: its name, further files, modules to preload.",
    )
    env: dict[str, Variable] = Field(
        default_factory=dict, description="Environment variables of every service; false removes one."
    )
    defaults: Service = Field(default_factory=Service, description="Merged under every service.")
    services: dict[str, Service] = Field(default_factory=dict, description="The services, by name.")
    groups: dict[str, list[Name]] = Field(default_factory=dict, description="Names for several services at once.")
    profile: dict[str, Profile] = Field(
        default_factory=dict, description="Overlays by name, chosen with --profile or NOVAD_PROFILE."
    )
    unset: list[Name] = Field(
        default_factory=list, description="In nova.local.toml: keys to remove, such as services.api.env.DEBUG."
    )


NESTED: dict[str, type[Table]] = {
    "novad": Novad, "defaults": Service, "services": Service, "profile": Profile, "ready": Ready,
    "health": Health, "backoff": Backoff, "stop": Stop, "signals": Signals, "logs": Logs, "watch": Watching,
}  # fmt: skip
KEYED = ("services", "profile")  # tables whose keys the user chooses


def model_at(path: Path) -> type[Table] | None:
    """The model of the table at `path` of a file; None where it has no model, such as [env]."""
    model: type[Table] | None = File
    parts = iter(path)
    for part in parts:
        if model is None or part not in model.model_fields:
            return None
        model = NESTED.get(str(part))
        if part in KEYED and next(parts, None) is None:
            return None
    return model
