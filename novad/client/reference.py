"""The reference of the commands, from the table of verbs: docs/commands.md and the manual page. Pure.

`scripts/docs` writes both; a test holds them against the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from novad.client.grammar import GLOBAL_OPTIONS, Verb

EXIT_CODES = (
    (0, "done"),
    (1, "it was tried and failed; `run`: a service crashed and nobody had asked for it"),
    (2, "the command line is wrong"),
    (3, "not running; `status --check`: something is not ready"),
    (4, "no such service"),
    (78, "the configuration is at fault"),
    (124, "`--timeout` ran out"),
    (125, "`run` could not start the cluster"),
    (126, "`run`, `fg`, `call`: the command is not executable"),
    (127, "`run`, `fg`, `call`: there is no such command"),
    (130, "interrupted"),
)
ENVIRONMENT = (
    ("NOVAD_FILE", "the configuration, as `-f`"),
    ("NOVAD_NAMESPACE", "the namespace, as `--namespace`"),
    ("NOVAD_PROFILE", "the profile, as `--profile`"),
    ("NO_COLOR, FORCE_COLOR", "never, always colour; `--color` is stronger"),
)


def usage(verb: Verb) -> str:
    """`novad logs [OPTIONS] SVC...`"""
    words = ["novad", verb.name]
    if any(isinstance(param, click.Option) for param in verb.params):
        words.append("[OPTIONS]")
    for param in verb.params:
        if isinstance(param, click.Argument):
            shown = param.metavar or (param.name or "").upper()
            words.append(shown if param.required or shown.startswith("[") else f"[{shown}]")
    return " ".join(words)


def options(verb: Verb) -> Iterator[tuple[str, str]]:
    """(spelling, help) of each option."""
    for param in verb.params:
        if isinstance(param, click.Option):
            names = ", ".join([*param.opts, *param.secondary_opts])
            metavar = "" if param.is_flag else param.metavar or choices(param)
            yield f"{names}{metavar if metavar.startswith('[=') else f' {metavar}'}".strip(), param.help or ""


def choices(param: click.Option) -> str:
    return "|".join(param.type.choices) if isinstance(param.type, click.Choice) else param.type.name.upper()


def global_rows() -> Iterator[tuple[str, str]]:
    for _, spellings, more in GLOBAL_OPTIONS:
        metavar = more.get("metavar", "") or ("|".join(more["type"].choices) if "type" in more else "")
        yield f"{', '.join(spellings)} {metavar}".strip(), more["help"]


def aliases(verb: Verb) -> str:
    return ", ".join(
        f"`{name}`" + (f" (= `{' '.join([verb.name, *prefix])}`)" if prefix else "")
        for name, prefix in verb.aliases.items()
    )


def sections(verbs: Sequence[Verb]) -> dict[str, list[Verb]]:
    found: dict[str, list[Verb]] = {}
    for verb in verbs:
        if not verb.hidden:
            found.setdefault(verb.section, []).append(verb)
    return found


# --- Markdown -----------------------------------------------------------------------------------------------


PAGE_HEAD = (
    "Every verb and every option; this page is made by `scripts/docs` from the table that the command line itself is "
    "made from. SVC is a process (`compute.2`), a service (`compute`: all its replicas), a group, a glob or `all`. "
    "TIME is `30`, `30s`, `1.5s`, `250ms`, `2m` or `1h30m`."
)


def commands_page(verbs: Sequence[Verb]) -> str:
    """docs/commands.md."""
    lines = ["# Commands", "", *filled(PAGE_HEAD), ""]
    for title, members in sections(verbs).items():
        lines += [f"## {title}", ""]
        for verb in members:
            lines += verb_entry(verb)
    lines += ["## Global options", "", "Before the verb; the long ones after it too.", "", *table(global_rows())]
    lines += ["", "## Exit codes", "", *table((str(code), text) for code, text in EXIT_CODES)]
    lines += ["", "## Environment", "", *table(ENVIRONMENT)]
    return "\n".join(lines) + "\n"


def verb_entry(verb: Verb) -> list[str]:
    lines = [f"### {verb.name}", "", *filled(verb.help), "", "```", usage(verb), "```", ""]
    for command, meaning in verb.examples:
        lines.append(f"- `{command}`: {meaning}")
    rows = list(options(verb))
    lines += ["", *table(rows)] if rows else []
    if verb.aliases:
        lines += ["", f"Also called: {aliases(verb)}"]
    return [*lines, ""]


def filled(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    return ["| | |", "|---|---|", *(f"| `{cell(name)}` | {cell(text)} |" for name, text in rows)]


# --- The manual page (man(7)) -------------------------------------------------------------------------------


def man_page(verbs: Sequence[Verb], version: str) -> str:
    """docs/novad.1."""
    lines = [
        f'.TH NOVAD 1 "" "novad {version}" "User Commands"',
        ".SH NAME", "novad \\- run the processes of a development cluster",
        ".SH SYNOPSIS", ".B novad", "[\\fIOPTIONS\\fR] \\fIVERB\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        roff("Starts, supervises and shows the processes that nova.toml describes. The nearest nova.toml upwards "
             "decides the project. Without a verb: a shell where a cluster runs, else what can be typed."),
        ".SH OPTIONS",
    ]  # fmt: skip
    lines += paragraphs(global_rows())
    for title, members in sections(verbs).items():
        lines.append(f".SH {title.upper()}")
        for verb in members:
            lines += [f".SS {roff(usage(verb))}", roff(verb.help), *paragraphs(options(verb))]
            for command, meaning in verb.examples:
                lines += [".PP", f"\\fB{roff(command)}\\fR", ".br", roff(meaning)]
    lines += [".SH EXIT STATUS", *paragraphs((str(code), text) for code, text in EXIT_CODES)]
    lines += [".SH ENVIRONMENT", *paragraphs(ENVIRONMENT)]
    return "\n".join(lines) + "\n"


def paragraphs(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for name, text in rows for line in (".TP", f"\\fB{roff(name)}\\fR", roff(text))]


def roff(text: str) -> str:
    """Plain text as man(7) takes it: no backticks, a dash that can be copied, no accidental request."""
    escaped = text.replace("\\", "\\e").replace("`", "").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
