"""`novad reload`: compile again, show the difference field by field, apply all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from novad.client.app import App
from novad.client.compiling import RELOAD_ANSWER_S, compiled, is_change, running_cluster
from novad.client.link import Link
from novad.client.render.difference import change_lines
from novad.client.render.paint import Paint
from novad.client.render.words import awaited, terminals
from novad.core.secret import shown, shown_words, without_userinfo
from novad.core.spec import to_json


def run(app: App, dry_run: bool, yes: bool, adopt_env: bool) -> int:
    running = running_cluster(app)
    with app.link() as link:
        cluster = compiled(app, (), (), running)
        if adopt_env:
            cluster = replace(cluster, env=compiled(app, (), (), None).env)
        data = to_json(cluster)
        # What was marked until now is no less secret for being unmarked.
        marked = (*cluster.secrets, *(running.secrets if running else ()))
        difference = without_secrets(link.request("reload", RELOAD_ANSWER_S, cluster=data, dry_run=True), marked)
        if app.options.json and dry_run:
            app.print_json(difference)
            return 0
        if not app.options.json:
            lines = difference_lines(difference, app.terminal.paint, app.config_name(), app.terminal.width())
            app.terminal.out("\n".join(lines))
        if dry_run:
            return 0
        if not is_change(difference):
            # The daemon hears of it all the same: a remark in the file, or another file, is part of what is in force.
            return apply(app, link, data, marked, quiet=True)
        if not app.options.json:
            say_what_leaves_its_terminal(app, link, difference)
        if not yes and not app.options.json and not app.terminal.confirms("Apply?"):
            app.terminal.note("nothing was changed")
            return 0
        return apply(app, link, data, marked)


def apply(app: App, link: Link, data: Any, marked: Sequence[str], quiet: bool = False) -> int:
    reply = link.request("reload", RELOAD_ANSWER_S, cluster=data, dry_run=False)
    if app.options.json:
        app.print_json(without_secrets(reply, marked))
        return 0
    for row in reply.get("waiting", []):
        app.terminal.note(f"{row['name']} waits for {awaited(row['for'])}")
    down = dict.fromkeys(
        item["name"] for row in reply.get("waiting", []) for item in row["for"] if item["state"] != "waiting"
    )
    if down:
        app.terminal.note(f"hint: {app.command_name()} start {' '.join(down)}")
    if not quiet:
        app.terminal.note(f"applied; {app.command_name()} status shows the result")
    return 0


def without_secrets(difference: dict[str, Any], marked: Sequence[str]) -> dict[str, Any]:
    """The difference as it may be shown."""
    changed = [
        {**row, "fields": [_shown(field, marked) for field in row["fields"]]} for row in difference["changed"]
    ]
    return {**difference, "changed": changed}


def _shown(field: dict[str, Any], marked: Sequence[str]) -> dict[str, Any]:
    key = field["key"]
    return {"key": key, **{side: _shown_value(key, field[side], marked) for side in ("old", "new")}}


def _shown_value(key: str, value: Any, marked: Sequence[str]) -> Any:
    if isinstance(value, str):
        return (
            shown(key.removeprefix("env."), value, marked) if key.startswith("env.") else without_userinfo(value)
        )
    return shown_words(value) if key == "argv" else value


def say_what_leaves_its_terminal(app: App, link: Link, difference: dict[str, Any]) -> None:
    """A restart or a removal ends what `novad fg` runs on a terminal."""
    ending = {row["name"] for row in difference["changed"] if row.get("restart", True)} | {*difference["removed"]}
    rows = link.request("status", names=[], usage=False)["processes"]
    shown = terminals([row for row in rows if row["name"] in ending])
    if shown:
        app.terminal.note(f"this ends what is on a terminal (novad fg): {shown}")


def difference_lines(difference: dict[str, Any], paint: Paint, config: str, width: int) -> list[str]:
    """`~ api.env.LOG_LEVEL  "info" → "debug"`, and what follows from it."""
    if not is_change(difference):
        return [f"{config}: nothing has changed"]
    lines = [config]
    for changed in difference["changed"]:
        for field in changed["fields"]:
            lines += change_lines(changed["name"], field, paint, width)
        effect = f"restart {changed['name']}" if changed.get("restart", True) else "no restart needed"
        lines.append(f"      {paint(effect, 'dim')}")
    lines += [
        f"  {paint('+', 'green')} {name}      {paint('start ' + name, 'dim')}" for name in difference["added"]
    ]
    lines += [
        f"  {paint('-', 'red')} {name}      {paint('stop ' + name, 'dim')}" for name in difference["removed"]
    ]
    if difference.get("unchanged"):
        lines.append(f"    {len(difference['unchanged'])} unchanged")
    return lines
