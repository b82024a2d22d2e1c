"""The rows of the table of verbs about nova.toml, the shell and help; see `commands`."""

from __future__ import annotations

import click

from novad.client.grammar import (
    Verb,
    complete_verbs,
    flag,
    option,
)

HERE = "novad.client.verbs"
LOOK, PROJECT = "Look closer", "Project and shell"

LOOK_VERBS: tuple[Verb, ...] = (
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
)

PROJECT_VERBS: tuple[Verb, ...] = (
    Verb(
        "init",
        PROJECT,
        "Write a commented nova.toml into this directory. A process-compose.yaml, Procfile, supervisord.conf or "
        "compose file that is there is carried over, and what could not be is said; without one, the console scripts "
        "of a pyproject.toml are proposed.",
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
