"""Verbs that change what runs: start, stop, restart, signal, wait, down.

Each prints one line a process and returns when the thing is true, not when it was asked for.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from novad.client.app import App
from novad.client.deadline import Deadline
from novad.client.interrupts import readable
from novad.client.link import Link, Unanswered
from novad.client.render.paint import Paint
from novad.client.render.status import note
from novad.client.render.words import duration, plural, signal_name, terminals
from novad.core.errors import NotRunning, NovadError

TIMED_OUT = 124
# How much longer than the processes' own stop timeouts the daemon may need before we call it stuck.
GRACE_S = 30.0


def start(
    app: App, names: tuple[str, ...], once: bool, no_deps: bool, no_wait: bool, timeout: float | None
) -> int:
    with app.link() as link:
        reply = link.request("start", names=list(names), once=once, deps=not no_deps)
        if no_wait:
            return answer(app, reply, f"starting {', '.join(reply['names'])}")
        return wait_until(app, link, list(names), "ready", Deadline(timeout), reply)


def stop(app: App, names: tuple[str, ...], timeout: float | None, kill: bool) -> int:
    with app.link() as link:
        say_what_stops(app, link, names)
        reply = link.request("stop", None, names=list(names), timeout_s=timeout, kill=kill)
        return report_stopped(app, reply)


def restart(
    app: App, names: tuple[str, ...], rolling: bool, deps: bool, no_wait: bool, timeout: float | None
) -> int:
    deadline = Deadline(timeout)
    with app.link() as link:
        if not rolling:
            return restart_group(app, link, list(names), deps, no_wait, deadline)
        chosen = link.request("status", names=list(names), usage=False)["processes"]
        for process in chosen:
            code = restart_group(app, link, [process["name"]], deps, False, deadline)
            if code:
                app.terminal.note(f"hint: the rest was left alone; {app.command_name()} why {process['name']}")
                return code
    return 0


def restart_group(app: App, link: Link, names: list[str], deps: bool, no_wait: bool, deadline: Deadline) -> int:
    reply = link.request("restart", None, names=names, deps=deps)
    if reply.get("survivors"):
        return report_stopped(app, reply)
    if no_wait:
        return answer(app, reply, f"restarted {', '.join(reply['names'])}")
    return wait_until(app, link, reply["names"], "ready", deadline, reply)


def signal(app: App, signal_name: str, names: tuple[str, ...], group: bool) -> int:
    with app.link() as link:
        reply = link.request(
            "signal", names=list(names), signal=signal_name.upper().removeprefix("SIG"), group=group
        )
    sent = ", ".join(f"{item['name']} ({item['pid']})" for item in reply["signalled"])
    if not sent:
        app.terminal.err(f"error: nothing to signal: no process of {', '.join(names)} runs")
        app.terminal.note(f"hint: {app.command_name()} start {names[0]}")
        return 1
    return answer(app, reply, f"sent {spelled(signal_name)} to {sent}")


def spelled(name: str) -> str:
    return signal_name(int(name)) if name.isdigit() else f"SIG{name.upper().removeprefix('SIG')}"


def down(app: App, timeout: float | None, kill: bool) -> int:
    try:
        link = app.link()
    except NotRunning:
        return clean_up(app)
    with link:
        if not (kill or app.options.json or may_take_terminals(app, link)):
            app.terminal.note("nothing was stopped")
            return 0
        say_what_stops(app, link, ())
        reply = link.request("down", None, timeout_s=timeout, kill=kill)
        wait_for_the_end(link)
    return report_stopped(app, reply, "the cluster is down")


def may_take_terminals(app: App, link: Link) -> bool:
    """Whether `down` may end what `novad fg` runs on terminals: asked where somebody can be asked."""
    shown = terminals(link.request("status", names=[], usage=False)["processes"])
    if not shown:
        return True
    app.terminal.note(f"this ends what is on a terminal (novad fg): {shown}")
    return app.terminal.confirms("Stop everything?")


def upgrade(app: App) -> int:
    """The daemon execs itself; the same pid answers with the new version."""
    with app.link() as link:
        before = link.request("ping")
        link.request("upgrade", None)
        while link.pending_events() or not link.ended:
            readable([link], GRACE_S)
    from novad.client.launch import connect_within

    with connect_within(app.place(), GRACE_S, app.trace) as link:
        after = link.request("ping")
    if after["pid"] != before["pid"]:
        raise NovadError(
            f"the daemon (pid {before['pid']}) ended; pid {after['pid']} took over", "see .novad/novad.log"
        )
    return answer(app, after, f"novad {before['version']} → {after['version']}, no service was restarted")


def clean_up(app: App) -> int:
    """No daemon answers. Children of one that was killed are taken over by a new one, which then stops them."""
    place = app.place()
    if not Path(place.run_dir).exists():
        return answer(app, {"stopped": [], "survivors": []}, "nothing to do: not running")
    from novad.client.launch import connect_or_launch

    link, _ = connect_or_launch(place, app.trace)
    with link:
        reply = link.request("down", None, timeout_s=None, kill=False)
        wait_for_the_end(link)
    return report_stopped(
        app, reply, "nothing was left running" if not reply["stopped"] else "the cluster is down"
    )


def wait_for_the_end(link: Link) -> None:
    """Until the daemon's process is gone: neither its lock nor itself is met by whoever looks next."""
    try:
        pidfd = os.pidfd_open(link.daemon_pid())
    except ProcessLookupError:
        return
    try:
        readable([pidfd], GRACE_S)
    finally:
        os.close(pidfd)


def say_what_stops(app: App, link: Link, names: tuple[str, ...]) -> None:
    if app.options.json or app.options.quiet:
        return
    running = [
        item["name"]
        for item in link.request("status", names=list(names), usage=False)["processes"]
        if item.get("pid") is not None
    ]
    if running:
        app.terminal.note(f"stopping {plural(len(running), 'process')} ...")


def report_stopped(app: App, reply: dict[str, Any], summary: str = "") -> int:
    """One line a process, then survivors as an error."""
    survivors = reply.get("survivors") or []
    if app.options.json:
        app.print_json(reply)
        return 1 if survivors else 0
    paint = app.terminal.paint
    width = max((len(item["name"]) for item in reply["stopped"]), default=0)
    for item in () if app.options.quiet else reply["stopped"]:
        name = paint.service(item["name"], item["name"].ljust(width))
        took = duration(item["seconds"])
        app.terminal.out(f"{paint('○', 'dim')} {name}  stopped in {took}{ending(item['how'], paint)}")
    for item in survivors:
        app.terminal.err(f"error: {survivor_text(item)}")
    if survivors:
        app.terminal.note(f"hint: kill -9 {' '.join(str(item['pid']) for item in survivors)}")
        return 1
    if summary or not reply["stopped"]:
        app.terminal.note(summary or "nothing was running")
    return 0


def survivor_text(item: dict[str, Any]) -> str:
    """Who outlived SIGKILL, and what holds it."""
    held = f" ({item['held']})" if item.get("held") else ""
    return f"{item['name']}: pid {item['pid']} did not die: {item['command']}{held}"


def ending(how: str, paint: Paint) -> str:
    """How it ended, where that is not simply what was asked of it."""
    return "" if how.startswith(("killed by SIGTERM", "exit 0 ")) else paint(f"  {how}", "dim")


def wait_until(
    app: App,
    link: Link,
    names: list[str],
    condition: str,
    deadline: Deadline,
    reply: dict[str, Any] | None,
) -> int:
    """Waits with the daemon's own `wait`; tells what is not so. `reply` None says nothing when it holds."""
    started_s = time.monotonic()
    try:
        outcome = link.request("wait", deadline.left_s(), names=names, **{"for": condition})
    except Unanswered:
        left = link.request("status", names=names, usage=False)["processes"]
        unmet = [item for item in left if item["state"] not in (condition, "done")]
        return tell_unmet(app, unmet, condition, TIMED_OUT)
    if not outcome["met"]:
        return tell_unmet(app, outcome["unmet"], condition, 1)
    if reply is None:
        return 0
    what = ", ".join(names) if names else "all"
    return answer(app, {**reply, **outcome}, f"{what} {condition}  {duration(time.monotonic() - started_s)}")


def tell_unmet(app: App, unmet: list[dict[str, Any]], condition: str, code: int) -> int:
    if app.options.json:
        app.print_json({"met": False, "timed_out": code == TIMED_OUT, "unmet": unmet})
        return code
    reason = "the time ran out" if code == TIMED_OUT else "this will not happen any more"
    app.terminal.err(f"error: not {condition}: {reason}")
    for item in unmet:
        said = note({"waiting_for": [], **item})
        app.terminal.err(f"  {item['name']}  {item['state']}{'  ' + said if said else ''}")
    if unmet:
        app.terminal.note(f"hint: {app.command_name()} why {unmet[0]['name']}")
    return code


def answer(app: App, reply: dict[str, Any], text: str) -> int:
    if app.options.json:
        app.print_json(reply)
    elif not app.options.quiet:
        app.terminal.out(text)
    return 0
