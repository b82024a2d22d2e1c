"""The table of verbs. The CLI, the shell, completion, help and the reference all read it.

A row costs nothing until its verb is used: actions are named as `module:function` and imported then.
"""

from __future__ import annotations

import click

from novad.client.grammar import (
    Verb,
    complete_names,
    complete_signals,
    complete_verbs,
    flag,
    option,
    seconds,
    service,
    services,
)
from novad.client.testing import TEST_VERBS

DAILY, CONTROL, LOOK, PROJECT = "Every day", "Control", "Look closer", "Project and shell"
HERE = "novad.client.verbs"

VERBS: tuple[Verb, ...] = (
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
            flag("-w", "--watch", help="repaint in place until q or Ctrl-C"),
            flag("--check", help="exit 3 when something that should be ready is not"),
            option(
                "--timeline",
                is_flag=False,
                flag_value="text",
                type=click.Choice(["text", "html"]),
                metavar="[=html]",
                help="how the start went, as bars over time; html: one page that needs nothing else",
            ),
            flag(
                "--env",
                "environment",
                help="the variables of the services, where each came from, what differs",
            ),
            option(
                "--graph",
                is_flag=False,
                flag_value="text",
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
            ("novad call scheduler ping --timeout 2s", "one call; exit 124 when nobody answers in time"),
            ("novad call compute get_console_output instance_id:=7", "with a number"),
        ),
        f"{HERE}.call:run",
        (
            click.Argument(["topic"], metavar="TOPIC", shell_complete=complete_names),
            click.Argument(["method"], metavar="METHOD"),
            click.Argument(["values"], nargs=-1, metavar="[NAME=TEXT|NAME:=JSON]..."),
            seconds("--timeout", help="how long to wait for the answer"),
            flag("--cast", help="do not wait for a result"),
            flag("--fanout", help="to every process that listens on TOPIC"),
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
    Verb(
        "check",
        LOOK,
        "Check nova.toml and start nothing. All faults at once, each with its line.",
        (
            ("novad check", "exit 0, or 78 with every fault"),
            ("novad check --show api", "the final command, directory and environment, and where each came from"),
        ),
        f"{HERE}.check:run",
        (
            option(
                "--show", "show_name", metavar="SVC", help="the compiled service with the origin of each value"
            ),
            option("--explain", "explain_key", metavar="KEY", help="the manual entry of a key"),
            flag("--schema", help="the JSON schema of nova.toml, for editors"),
            flag("--system", "system", help="versions, stale sockets, busy ports, limits"),
            option(
                "--format", "style", type=click.Choice(["full", "short"]), default="full", help="of the faults"
            ),
        ),
        aliases={"config": (), "doctor": ("--system",)},
    ),
    *TEST_VERBS,
    Verb(
        "init",
        PROJECT,
        "Write a commented nova.toml into this directory. A process-compose.yaml, Procfile, supervisord.conf or "
        "compose file that is there is carried over, and what could not be is said.",
        (
            ("novad init", "from the file of another tool, or an example to start from"),
            ("novad init --from supervisord.conf", "from this file"),
        ),
        f"{HERE}.init:run",
        (
            option("--from", "source", metavar="FILE", help="the file to carry over; `none` writes the example"),
            flag("--force", help="overwrite the nova.toml that is there"),
        ),
    ),
    Verb(
        "shell",
        PROJECT,
        "The same commands without `novad`, with completion, history and a live toolbar. Reads lines from stdin "
        "where that is no terminal, and stops at the first failure.",
        (
            ("novad shell", "Tab completes, Ctrl-D leaves, the services keep running"),
            ("novad shell < script", "run the lines of a file"),
        ),
        f"{HERE}.meta:shell",
        (flag("-k", "--keep-going", help="go on after a failure"),),
    ),
    Verb(
        "completion",
        PROJECT,
        "Print the completion script for a shell.",
        (
            ('eval "$(novad completion bash)"', "in ~/.bashrc"),
            ("novad completion fish | source", "in config.fish"),
        ),
        f"{HERE}.meta:completion",
        (click.Argument(["shell_name"], type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL"),),
    ),
    Verb(
        "help",
        PROJECT,
        "Show the help of a verb.",
        (
            ("novad help up", "as novad up --help"),
            ("novad help", "all verbs"),
        ),
        f"{HERE}.meta:show_help",
        (click.Argument(["verb_name"], required=False, metavar="VERB", shell_complete=complete_verbs),),
    ),
)
