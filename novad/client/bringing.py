"""What `novad up` does: compile, start the daemon where none runs, start the services, show how it goes, then follow.

The `up` that started the daemon owns it while attached: it holds a lease, and the cluster ends with it, by
whatever death. A second `up` attaches to what runs.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from novad.client.app import App, write_names
from novad.client.compiling import RELOAD_ANSWER_S, compiled, is_change, running_cluster
from novad.client.deadline import Deadline
from novad.client.guardian import Sentry
from novad.client.launch import has_records
from novad.client.link import Link
from novad.client.render.progress import about, summary
from novad.client.render.words import plural
from novad.client.starting import OF_THE_LOG, Outcome, Starting
from novad.client.startup import Startup, brought_up_to_date
from novad.client.verbs.control import TIMED_OUT
from novad.client.verbs.why import tell_failures
from novad.core.errors import NotRunning, NovadError
from novad.core.select import select
from novad.core.spec import Cluster, to_json

UP_ANSWER_S = 60.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The command line of `up`."""

    names: tuple[str, ...]
    detach: bool
    wait: bool
    timeout: float | None
    no_deps: bool
    attach: tuple[str, ...]
    no_attach: tuple[str, ...]
    no_keys: bool
    watch: bool
    seed: int | None


def up(
    app: App,
    *,
    scale: tuple[str, ...],
    env: tuple[str, ...],
    explain: bool,
    shuffle: bool,
    seed: int | None,
    **given: Any,
) -> int:
    options = UpOptions(**given, seed=random.randrange(1_000_000) if shuffle and seed is None else seed)
    running = running_cluster(app)
    cluster = compiled(app, scale, env, running)
    specs = {item.name: item for item in cluster.processes}
    for selector in (*options.names, *options.attach, *options.no_attach):
        # A misspelled name must not start a daemon first.
        select([selector], specs, cluster.groups)
    if explain:
        return explain_start(app, cluster, options)
    app.terminal.finish_note(about(cluster.project, len(cluster.processes), app.terminal.err_paint))
    if options.seed is not None:
        app.terminal.note(f"the order is shuffled; --seed {options.seed} gives the same one")
    link, owns = app.link_or_launch()
    with link:
        if running is not None and (scale or env):
            change(app, link, running, cluster)
        return bring_up(app, link, cluster, options, owns)


def change(app: App, link: Link, running: Cluster, cluster: Cluster) -> None:
    """`up --scale` and `up -e` of what runs already: applied at once, unless the files have changed as well."""
    as_it_was = compiled(app, (), (), running)
    if is_change(link.request("reload", cluster=to_json(as_it_was), dry_run=True)):
        raise NovadError(
            "nova.toml differs from what is running, so --scale and -e would bring more than they say",
            f"{app.command_name()} reload first",
        )
    link.request("reload", RELOAD_ANSWER_S, cluster=to_json(cluster), dry_run=False)


def bring_up(
    app: App, link: Link, cluster: Cluster, options: UpOptions, owns: bool, sentry: Sentry | None = None
) -> int:
    """Everything after the daemon answers; the exit code. `sentry` is the one that an owner has already.

    The cluster is loaded first and started after the subscription, so that no event is missed.
    """
    attaches = not options.detach
    ask = {
        "cluster": to_json(cluster),
        "names": list(options.names),
        "deps": not options.no_deps,
        "seed": options.seed,
    }
    if owns and attaches:
        sentry = sentry or Sentry(app.place())
        link.request("lease")
    say_changed(app, link.request("up", UP_ANSWER_S, start=False, **ask))
    rows = link.request("status", names=[], usage=False)["processes"]
    shown = shown_logs(rows, cluster, options) if attaches else []
    picture = link.request("subscribe", states=True, lines=shown or None)["processes"]
    reply = link.request("up", UP_ANSWER_S, start=True, **ask)
    if options.watch:
        say_watched(app, link.request("watch", UP_ANSWER_S, on=True)["names"])
    events = link.queued_events()
    now = brought_up_to_date(picture, events)
    lines = [event for event in events if event.get("type") in OF_THE_LOG]
    write_names(app.place(), list(now.values()))
    processes = [now[name] for name in reply["names"]]
    startup = Startup(
        tuple(item["name"] for item in processes),
        {item.name: tuple(dependency.name for dependency in item.after) for item in cluster.processes},
        time.monotonic(),
    )
    if options.detach and not options.wait:
        return answer_detached(app, link, startup)
    starting = Starting(app, link, startup, processes, Deadline(options.timeout), attaches)
    starting.kept.extend(lines)
    if not attaches:
        return detached(app, link, starting)
    from novad.client.attach import Attached

    attached = Attached(app, link, starting, shown, sentry, keys=not options.no_keys)
    try:
        return attached.run()
    except NotRunning:
        if sentry is None or not has_records(app.place()):
            raise
    return take_over(app, cluster, options, sentry, attached.is_stopping)


def take_over(app: App, cluster: Cluster, options: UpOptions, sentry: Sentry, is_stopping: bool) -> int:
    """The daemon was killed under the owner of the cluster: a new one adopts what runs, and the owner goes on."""
    app.terminal.note("the daemon died; a new one takes over what runs")
    with app.link() as link:
        if is_stopping:
            link.request("down", None)
            return INTERRUPTED
        return bring_up(app, link, cluster, options, True, sentry)


def shown_logs(rows: list[dict[str, Any]], cluster: Cluster, options: UpOptions) -> list[str]:
    """The processes whose lines are shown: by the file, then by the command line."""
    specs = {item.name: item for item in cluster.processes}
    shown = {item["name"] for item in rows if item.get("attach", True)}
    if options.attach:
        shown |= set(select(options.attach, specs, cluster.groups))
    if options.no_attach:
        shown -= set(select(options.no_attach, specs, cluster.groups))
    return [item["name"] for item in rows if item["name"] in shown]


def say_watched(app: App, names: list[str]) -> None:
    if names:
        app.terminal.note(f"watching the files of {', '.join(names)}")
    else:
        app.terminal.note("nothing to watch: no service says which files it is made of")
        app.terminal.note('hint: watch = ["src/**/*.py"] in its table of nova.toml')


def say_changed(app: App, reply: dict[str, Any]) -> None:
    if reply.get("changed") and not reply.get("loaded"):
        app.terminal.note("nova.toml differs from what is running")
        app.terminal.note(f"hint: {app.command_name()} reload shows the difference and applies it")


def answer_detached(app: App, link: Link, startup: Startup) -> int:
    """`up -d --no-wait`."""
    if app.options.json:
        app.print_json(link.request("status", names=[], usage=False))
    else:
        app.terminal.note(
            f"starting {plural(len(startup.names), 'process')}; {app.command_name()} status shows them"
        )
    return 0


def detached(app: App, link: Link, starting: Starting) -> int:
    """`up -d`: 0 when all is ready, 1 with the reason, 124 when the time ran out."""
    outcome = starting.run_alone()
    startup = starting.startup
    if outcome is Outcome.INTERRUPTED:
        app.terminal.note(f"interrupted; the services go on starting, {app.command_name()} down stops them")
        return 130
    if app.options.json:
        app.print_json(link.request("status", names=list(startup.names), usage=False))
    if outcome is Outcome.TIMED_OUT:
        unready = startup.unsettled()
        app.terminal.err(f"error: not ready in time: {', '.join(row.name for row in unready)}")
        tell_failures(app, link, [row.name for row in (*startup.failed(), *unready)], lines=5)
        return TIMED_OUT
    lines = summary(startup, time.monotonic(), app.terminal.err_paint, app.terminal.width())
    app.terminal.note("\n".join(lines))
    if startup.is_good:
        return 0
    bad = startup.failed() or [row for row in startup.rows.values() if row.state not in ("ready", "done")]
    tell_failures(app, link, [row.name for row in bad])
    return 1


def explain_start(app: App, cluster: Cluster, options: UpOptions) -> int:
    """`up --explain`: each process with the reason why it would be started, in file order."""
    specs = {item.name: item for item in cluster.processes}
    asked = set(select(options.names, specs, cluster.groups)) if options.names else set()
    if not options.names:
        asked = {item.name for item in cluster.processes if item.autostart}
    reasons = dict.fromkeys(asked, "named" if options.names else "autostart")
    if not options.no_deps:
        reasons |= needed(asked, cluster)
    rows = [{"name": name, "reason": reasons.get(name)} for name in specs]
    if app.options.json:
        app.print_json({"processes": rows})
        return 0
    width = max(map(len, specs), default=0)
    for row in rows:
        app.terminal.out(f"{(row['name'] or '').ljust(width)}  {row['reason'] or 'not started'}")
    return 0


def needed(asked: set[str], cluster: Cluster) -> dict[str, str]:
    """Process -> reason, for what `asked` needs, directly or not, by `after`."""
    specs = {item.name: item for item in cluster.processes}
    reasons: dict[str, str] = {}
    queue = sorted(asked)
    while queue:
        name = queue.pop(0)
        for dependency in specs[name].after:
            for target in select([dependency.name], specs, {}):
                if target not in asked and target not in reasons:
                    reasons[target] = f"needed by {name} (after)"
                    queue.append(target)
    return reasons
