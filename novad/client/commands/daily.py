"""The rows of the table of verbs that are typed every day; see `commands`."""

from __future__ import annotations

import click

from novad.client.grammar import Duration, OptionalValue, Verb, flag, option, seconds, services

HERE = "novad.client.verbs"
DAILY = "Every day"

DAILY_VERBS: tuple[Verb, ...] = (
    Verb(
        "up",
        DAILY,
        "Start the cluster and follow it. Starts the daemon where none runs, then the named services "
        "(or all) and what they need; shows progress, then the log. "
        "Ctrl-C stops everything; a second `up` attaches.",
        (
            ("novad up", "everything, follow the logs, Ctrl-C stops"),
            ("novad up -d --timeout 90s", "in the background; returns when all is ready"),
        ),
        f"{HERE}.up:run",
        (
            services(),
            flag("-d", "--detach", help="return when everything is ready; the cluster keeps running"),
            flag(
                "--wait/--no-wait", help="with -d: wait until ready (the default) or return at once", default=True
            ),
            seconds("--timeout", help="give up waiting after TIME (exit 124); the services keep running"),
            flag("--no-deps", help="only the named services, not what they need"),
            option(
                "--attach", multiple=True, metavar="SVC", help="show the log of SVC although its file says not to"
            ),
            option("--no-attach", multiple=True, metavar="SVC", help="do not show the log of SVC"),
            option("--scale", multiple=True, metavar="SVC=N", help="N replicas of SVC"),
            option("-e", "--env", "env", multiple=True, metavar="K=V", help="set a variable for every service"),
            flag("--watch", help="restart a service when a file that it watches changes"),
            flag(
                "--shuffle",
                help="start what may start at once in random order: finds a missing `after`",
            ),
            option("--seed", type=int, metavar="N", help="the same shuffled order again"),
            flag("--explain", help="say why each service is started, and start nothing"),
            flag("--no-keys", help="no single-key commands while attached"),
        ),
    ),
    Verb(
        "down",
        DAILY,
        "Stop everything, then the daemon. Also cleans up after a daemon that was killed.",
        (
            ("novad down", "stop all services in order, then the daemon"),
            ("novad down --kill", "do not wait for anything to end by itself"),
        ),
        f"{HERE}.control:down",
        (
            seconds("--timeout", help="kill what has not stopped after TIME (default: each service's own)"),
            flag("--kill", help="kill at once"),
        ),
    ),
    Verb(
        "status",
        DAILY,
        "Show the services. A table; with a name the details of that service and its last 10 log lines.",
        (
            ("novad status", "the table"),
            ("novad status api", "one service, with its last log lines"),
        ),
        f"{HERE}.status:run",
        (
            services(),
            OptionalValue(
                ["-w", "--watch"],
                alone="2s",
                type=Duration(),
                metavar="[=TIME]",
                help="repaint at every change, and every TIME (2s), until q or Ctrl-C",
            ),
            flag("--check", help="exit 3 when something that should be ready is not"),
            OptionalValue(
                ["--timeline"],
                alone="text",
                type=click.Choice(["text", "html"]),
                metavar="[=html]",
                help="how the start went, as bars over time; html: one page that needs nothing else",
            ),
            flag(
                "--env",
                "environment",
                help="the variables of the services, where each came from, what differs",
            ),
            OptionalValue(
                ["--graph"],
                alone="text",
                type=click.Choice(["text", "mermaid", "dot"]),
                metavar="[=mermaid|dot]",
                help="what waits for what",
            ),
            option("--columns", metavar="A,B", help="exactly these columns, whatever the width"),
            option(
                "-o",
                "--output",
                type=click.Choice(["wide", "svstat"]),
                help="wide: all columns; svstat: its line",
            ),
        ),
        aliases={"ps": (), "st": ()},
    ),
    Verb(
        "logs",
        DAILY,
        "Show the log lines of one, several or all services, merged in time order.",
        (
            ("novad logs api -f", "the last lines of api, then live"),
            ("novad logs -S 5m -g 'ERROR|Traceback' -C 3", "errors of the last 5 minutes, with context"),
        ),
        f"{HERE}.logs:run",
        (
            services(),
            flag("-f", "--follow", help="go on with new lines"),
            option("-n", "--lines", metavar="N", help="the last N lines, or `all` (default: all; with -f 10)"),
            option("-S", "--since", metavar="WHEN", help="from WHEN on: 5m (ago), 17:01, 2026-11-23T17:01:02"),
            option("-U", "--until", metavar="WHEN", help="up to WHEN"),
            option("-g", "--grep", metavar="RE", help="only lines in which RE is found"),
            option("-x", "--exclude", metavar="RE", help="not the lines in which RE is found"),
            option(
                "-C",
                "--context",
                type=click.IntRange(0),
                default=0,
                metavar="N",
                help="N lines around each match",
            ),
            option("-l", "--level", metavar="LEVEL", help="only this level and above: debug info warning error"),
            option(
                "--run",
                "run_number",
                type=int,
                metavar="N",
                help="only one run: 0 the current, -1 the one before",
            ),
            flag(
                "--prefix/--no-prefix",
                default=None,
                help="service names (default: not for one service in a pipe)",
            ),
            flag("-t", "--full-time", help="full ISO time"),
            flag("--no-time", help="no time"),
            flag("--stderr", help="only what was written to stderr"),
            option("--highlight", metavar="RE", help="mark what RE finds"),
        ),
        aliases={"log": (), "tail": ("-f", "-n", "20")},
    ),
    Verb(
        "why",
        DAILY,
        "Tell why a service crashed, or what it waits for. Without a name: the last crash.",
        (
            ("novad why", "the last crash, whichever service it was"),
            ("novad why api -n 40", "with the last 40 lines of the run that died"),
        ),
        f"{HERE}.why:run",
        (
            services(),
            option(
                "-n", "--lines", type=click.IntRange(0), default=10, metavar="N", help="lines of the run (10)"
            ),
            option(
                "--run",
                "run_number",
                type=int,
                metavar="N",
                help="an earlier exit: -2 is the one before the last",
            ),
            flag("--all", "show_all", help="every service that is not well"),
        ),
    ),
)
