"""Verbs about novad itself: help, completion, the shell's door."""

from __future__ import annotations

import sys

import click

from novad import __version__
from novad.client.app import App
from novad.client.grammar import VerbGroup, unknown_verb
from novad.core.errors import UsageError


def grammar() -> VerbGroup:
    """The group that this command line was parsed with."""
    group = click.get_current_context().find_root().command
    assert isinstance(group, VerbGroup)
    return group


def show_help(app: App, verb_name: str | None) -> int:
    """`novad help [VERB]`."""
    group = grammar()
    root = click.get_current_context().find_root()
    if verb_name is None:
        app.terminal.out(group.get_help(root))
        return 0
    command = group.get_command(root, verb_name)
    if command is None:
        raise unknown_verb(verb_name, list(group.by_name))
    app.terminal.out(
        command.get_help(click.Context(command, info_name=verb_name, parent=root, **command.context_settings))
    )
    return 0


def completion(app: App, shell_name: str) -> int:
    """The script that makes `shell_name` complete novad's command lines."""
    from click.shell_completion import get_completion_class

    group = grammar()
    kind = get_completion_class(shell_name)
    assert kind is not None, "the parameter's choice names only shells that click knows"
    script = kind(group, {}, "novad", "_NOVAD_COMPLETE")
    app.terminal.out(script.source_template % script.source_vars())
    return 0


def shell(app: App, keep_going: bool) -> int:
    """`novad shell`: interactive on a terminal, else the lines of stdin."""
    if sys.stdin.isatty() and app.terminal.out_is_terminal:
        if app.depth:
            raise UsageError("this is the shell already", "Ctrl-D leaves it")
        from novad.client.shell.repl import interactive

        return interactive(app)
    from novad.client.shell.lines import run_script

    return run_script(app, keep_going)


def welcome(app: App) -> str:
    """What bare `novad` prints: twelve lines that get a newcomer going."""
    bold = app.terminal.paint
    rows = (
        ("novad init", "write a nova.toml to start from"),
        ("novad up", "start everything and follow it; Ctrl-C stops"),
        ("novad up -d", "start in the background"),
        ("novad status", "what runs, and what does not"),
        ("novad logs -f api", "follow the log of one service"),
        ("novad why", "why the last crash happened"),
        ("novad restart api", "stop, start, wait until ready"),
        ("novad down", "stop everything"),
    )
    lines = [f"novad {__version__} runs the processes of a development cluster, described in nova.toml.", ""]
    lines += [f"  {bold(command.ljust(20), 'bold')}  {meaning}" for command, meaning in rows]
    return "\n".join([*lines, "", "novad help lists all commands, novad help VERB explains one."])
