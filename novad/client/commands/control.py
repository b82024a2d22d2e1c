"""The rows of the table of verbs that change what runs; see `commands`."""

from __future__ import annotations

import click

from novad.client.grammar import (
    Verb,
    complete_methods,
    complete_names,
    complete_signals,
    complete_topics,
    flag,
    option,
    seconds,
    service,
    services,
)

HERE = "novad.client.verbs"
CONTROL = "Control"

CONTROL_VERBS: tuple[Verb, ...] = (
    Verb(
        "start",
        CONTROL,
        "Start services, supervised, and what they need.",
        (
            ("novad start api", "and what it needs"),
            ("novad start --once worker", "run it once, do not restart it"),
        ),
        f"{HERE}.control:start",
        (
            services(required=True),
            flag("--once", help="do not start it again when it ends"),
            flag("--no-deps", help="not what they need"),
            flag("--no-wait", help="return at once instead of waiting until ready"),
            seconds("--timeout", help="give up waiting after TIME (exit 124)"),
        ),
    ),
    Verb(
        "stop",
        CONTROL,
        "Stop services; they stay down, the daemon stays up. Without a name: all of them.",
        (
            ("novad stop api", "TERM, then after its stop timeout KILL, to the whole tree"),
            ("novad stop --timeout 2s 'comp*'", "kill what has not ended after 2 seconds"),
        ),
        f"{HERE}.control:stop",
        (
            services(),
            seconds("--timeout", help="kill what has not stopped after TIME"),
            flag("--kill", help="kill at once"),
        ),
    ),
    Verb(
        "restart",
        CONTROL,
        "Stop and start services, and wait until they are ready again. Without a name: all of them.",
        (
            ("novad restart api", "stop, start, wait until ready"),
            ("novad restart --rolling compute", "one replica after the other"),
        ),
        f"{HERE}.control:restart",
        (
            services(),
            flag("--rolling", help="one process after the other, each ready before the next stops"),
            flag("--deps", help="also what depends on them"),
            flag("--no-wait", help="return when the new processes are spawned"),
            seconds("--timeout", help="give up waiting after TIME (exit 124)"),
        ),
    ),
    Verb(
        "reload",
        CONTROL,
        "Apply a changed nova.toml. Shows the difference, then restarts only what changed.",
        (
            ("novad reload", "show the difference, ask, apply"),
            ("novad reload --dry-run", "only show it"),
        ),
        f"{HERE}.reload:run",
        (
            flag("--dry-run", help="show the difference, change nothing"),
            flag("-y", "--yes", help="do not ask"),
            flag("--env", "adopt_env", help="also adopt this shell's environment"),
        ),
        aliases={"update": (), "reread": ("--dry-run",)},
    ),
    Verb(
        "upgrade",
        CONTROL,
        "Let the running daemon take on the installed version of novad. No service is restarted.",
        (
            ("pip install -U novad && novad upgrade", "new code, same processes"),
            ("novad -v upgrade", "and show what goes over the socket"),
        ),
        f"{HERE}.control:upgrade",
        (),
    ),
    Verb(
        "signal",
        CONTROL,
        "Send a signal to services.",
        (
            ("novad signal USR1 api", "the main process of api gets SIGUSR1"),
            ("novad signal --group TERM worker", "the whole process group"),
        ),
        f"{HERE}.control:signal",
        (
            click.Argument(["signal_name"], metavar="SIG", shell_complete=complete_signals),
            services(required=True),
            flag("--group", help="to the whole process group"),
        ),
    ),
    Verb(
        "kill",
        CONTROL,
        "Send a signal to services, KILL unless -s names another.",
        (
            ("novad kill -s HUP api", "as `novad signal HUP api`"),
            ("novad kill api", "SIGKILL; the supervisor starts it again"),
        ),
        f"{HERE}.control:signal",
        (
            option("-s", "--signal", "signal_name", default="KILL", metavar="SIG", help="the signal (KILL)"),
            services(required=True),
            flag("--group", help="to the whole process group"),
        ),
        hidden=True,
    ),
    Verb(
        "wait",
        CONTROL,
        "Wait until services are ready, stopped or done, or until a condition over states and log lines holds: "
        "SVC.ready, any other state word, SVC.log ~ /regular expression/ (a line written since this command began), "
        "SVC.flapping (it crashed in the last 5 seconds), with && || ! and parentheses. "
        "Exit 1 when that can no longer happen.",
        (
            ("novad wait db-sync --for done --timeout 60s", "exit 124 when the time runs out"),
            ("novad wait 'db.ready && worker.log ~ /consuming/ && !flapping' --hold 2s", "a condition"),
        ),
        f"{HERE}.wait:run",
        (
            click.Argument(["names"], nargs=-1, metavar="[SVC...|CONDITION]", shell_complete=complete_names),
            option(
                "--for",
                "condition",
                type=click.Choice(["ready", "stopped", "done"]),
                help="what to wait for (ready)",
            ),
            seconds("--hold", help="it must hold for TIME without a break"),
            seconds("--timeout", help="give up after TIME (exit 124)"),
        ),
    ),
    Verb(
        "fg",
        CONTROL,
        "Run a service here, on this terminal. The supervised copy stops, the same command runs with the same "
        "environment and ports, what depends on it stays up, and supervision resumes when it ends.",
        (
            ("novad fg api --pdb", "here, under pdb, until a breakpoint or an exception"),
            ("novad fg api --log -- --debug", "with one more argument; its output goes to its log too"),
        ),
        f"{HERE}.fg:run",
        (
            service(),
            flag("--pdb", help="under python -m pdb -c continue"),
            flag("--log", help="write its output into its log as well"),
            click.Argument(["arguments"], nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED),
        ),
    ),
    Verb(
        "call",
        CONTROL,
        "Call a method of a running service. Runs the command that nova.toml names in `[novad] call` with TOPIC, "
        "METHOD and the values; NAME=TEXT is a string, NAME:=JSON anything. Its exit code is the answer.",
        (
            ("novad call network reap_addresses --timeout 2s", "one call; exit 124 when nobody answers in time"),
            ("novad call compute get_console_output instance_id:=7", "with a number"),
        ),
        f"{HERE}.call:run",
        (
            click.Argument(["topic"], metavar="TOPIC", shell_complete=complete_topics),
            click.Argument(["method"], metavar="METHOD", shell_complete=complete_methods),
            click.Argument(["values"], nargs=-1, metavar="[NAME=TEXT|NAME:=JSON]..."),
            seconds("--timeout", help="how long to wait for the answer"),
            flag("--cast", help="do not wait for a result"),
            flag("--fanout", help="to every process that listens on TOPIC"),
            flag("--full", help="the whole traceback of a method that failed"),
        ),
    ),
    Verb(
        "svc",
        CONTROL,
        "Do what daemontools letters say. -u up, -d down, -o once, -t TERM, -h HUP, -a ALRM, -i INT, -q QUIT, "
        "-k KILL, -1 USR1, -2 USR2, -w WINCH, -p STOP, -c CONT, -x down and end the daemon. "
        "Several letters act in order.",
        (
            ("novad svc -t api", "TERM, so that it restarts"),
            ("novad svc -du api", "down, then up"),
        ),
        f"{HERE}.svc:run",
        (click.Argument(["words"], nargs=-1, metavar="-LETTERS SVC...", type=click.UNPROCESSED),),
        takes_letters=True,
    ),
)
