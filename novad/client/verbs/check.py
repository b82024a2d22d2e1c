"""`novad check`: the configuration judged, shown and explained; with --system, this machine too."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from novad.client.app import App
from novad.client.compiling import running_cluster, taken_ports
from novad.client.render.words import plural
from novad.core.errors import ConfigError
from novad.core.secret import shown, shown_words, without_userinfo
from novad.core.shell import joined
from novad.core.spec import Cluster


def run(app: App, show_name: str | None, explain_key: str | None, schema: bool, system: bool, style: str) -> int:
    terminal = app.terminal
    if schema:
        terminal.out(json.dumps(app.compiler.schema(), indent=2))
        return 0
    if explain_key is not None:
        text = app.compiler.explain(explain_key)
        if app.options.json:
            app.print_json({"key": explain_key, "text": text})
        else:
            terminal.out(text)
        return 0
    if system:
        from novad.client.verbs.doctor import run as check_system

        return check_system(app)
    if show_name is not None:
        return show(app, show_name)
    return validate(app, style)


def show(app: App, name: str) -> int:
    """The compiled process, value by value, with where each came from; secrets are not printed."""
    running = running_cluster(app)
    found = app.compiler.show(
        app.place(missing_ok=False),
        name,
        profile=app.profile,
        taken_ports=taken_ports(running),
        environ=app.environ,
    )
    marked = compile_plain(app).secrets
    rows = [(key, masked(key, value, marked), origin) for key, value, origin in found]
    if app.options.json:
        values = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        app.print_json({"name": name, "values": values})
        return 0
    paint = app.terminal.paint
    inherited = [] if app.options.verbose else [row for row in rows if row[2] == "environment"]
    rows = [row for row in rows if row not in inherited]
    key_width = min(32, max(len(key) for key, _, _ in rows))
    value_width = min(48, max(len(value) for _, value, _ in rows))
    for key, value, origin in rows:
        app.terminal.out(f"{key.ljust(key_width)}  {value.ljust(value_width)}  {paint(origin, 'dim')}".rstrip())
    if inherited:
        app.terminal.out(
            paint(f"and {len(inherited)} variables of this shell: novad -v check --show {name}", "dim")
        )
    return 0


def masked(key: str, value: str, marked: Sequence[str]) -> str:
    """The value of a key of nova.toml without what belongs on nobody's screen."""
    if key in ("command", "ready.exec", "health.exec"):
        return joined(shown_words(shlex.split(value)))
    return shown(key.removeprefix("env."), value, marked) if key.startswith("env.") else without_userinfo(value)


def validate(app: App, style: str) -> int:
    try:
        cluster = compile_plain(app)
    except ConfigError as error:
        return report_faults(app, error, style)
    if app.options.json:
        app.print_json(
            {"ok": True, "files": list(cluster.files), "processes": [item.name for item in cluster.processes]}
        )
        return 0
    app.terminal.out(f"{app.config_name()}: {plural(len(cluster.processes), 'process')}, no faults")
    if not cluster.processes:
        app.terminal.note('hint: add one under [services]: web = "python -m http.server ${port}"')
    return 0


def compile_plain(app: App) -> Cluster:
    return app.compiler.compile(
        app.place(missing_ok=False),
        profile=app.profile,
        overrides={},
        taken_ports={},
        scale={},
        environ=app.environ,
    )


def report_faults(app: App, error: ConfigError, style: str) -> int:
    """`short` is one line a fault, for problem matchers; the full report is told where every error is."""
    render = getattr(error, "render", None)
    if style != "short" or not callable(render):
        raise error
    app.terminal.out(render(short=True))
    return error.exit_code
