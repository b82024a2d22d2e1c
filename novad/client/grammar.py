"""The shape of a command line: a row of the table of verbs, and the click command it becomes.

The CLI, the shell, completion and help all read the rows of `commands`; this module only knows how a row is
parsed. Global options may stand before the verb, the long ones after it too; a short one after the verb belongs
to the verb (`logs -f` follows).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import click

from novad.client.app import App
from novad.client.render.words import parse_duration
from novad.core.errors import NovadError, UsageError


@dataclass(frozen=True, slots=True)
class Verb:
    """A row: `action` is `module:function`, called with the app and the parameters; it returns the exit code.

    `aliases` maps another name to the arguments it stands for. `examples` are (command, what it does).
    """

    name: str
    section: str
    help: str
    examples: tuple[tuple[str, str], ...]
    action: str
    params: tuple[click.Parameter, ...] = ()
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: bool = False
    takes_letters: bool = False


class ReaderGone(Exception):
    """Whoever read our output has enough (`novad logs | head`); click would turn the error itself into exit 1."""


class Duration(click.ParamType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except UsageError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)


class OptionalValue(click.Option):
    """An option that may stand without a value, which is as `alone`."""

    def __init__(self, names: Sequence[str], alone: str, **more: Any) -> None:
        super().__init__(names, is_flag=False, flag_value=alone, **more)
        self.alone = alone


def flag(*names: str, help: str, **more: Any) -> click.Option:
    return click.Option(names, is_flag=True, help=help, **more)


def option(*names: str, help: str, **more: Any) -> click.Option:
    return click.Option(names, help=help, **more)


def seconds(*names: str, help: str, **more: Any) -> click.Option:
    return click.Option(names, type=Duration(), metavar="TIME", help=help, **more)


def services(required: bool = False) -> click.Argument:
    return click.Argument(["names"], nargs=-1, required=required, metavar="SVC...", shell_complete=complete_names)


def service() -> click.Argument:
    return click.Argument(["name"], required=True, metavar="SVC", shell_complete=complete_names)


def complete_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of processes and services: from the daemon, else from the list of the last `up`."""
    from novad.client.names import known_names

    app = ctx.find_object(App)
    if app is None:
        return []
    given = set(ctx.params.get("names") or ())
    return [name for name in known_names(app) if name.startswith(incomplete) and name not in given]


def complete_topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Topics that were called before, then names of services: most topics are called like one."""
    from novad.client.calls import known_calls

    app = ctx.find_object(App)
    called = [topic for topic, _ in known_calls(app)] if app else []
    found = [topic for topic in called if topic.startswith(incomplete)]
    return list(dict.fromkeys([*found, *complete_names(ctx, param, incomplete)]))


def complete_methods(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Methods that were called on this topic before."""
    from novad.client.calls import known_calls

    app = ctx.find_object(App)
    called = known_calls(app) if app else []
    return [name for topic, name in called if topic == ctx.params.get("topic") and name.startswith(incomplete)]


def complete_signals(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    import signal

    names = [item.name.removeprefix("SIG") for item in signal.Signals]
    return [name for name in names if name.startswith(incomplete.upper())]


def complete_verbs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    group = ctx.find_root().command
    assert isinstance(group, VerbGroup)
    return [name for name in group.by_name if name.startswith(incomplete)]


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        app = ctx.find_object(App)
        given = ctx.get_parameter_source(param.name or "") not in (None, click.core.ParameterSource.DEFAULT)
        if app is not None and given:
            app.set_option(name, value)
        return value

    return callback


GLOBAL_OPTIONS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("directory", ("-C", "--directory"), {"metavar": "DIR", "help": "look for nova.toml from DIR upwards"}),
    ("file", ("-f", "--file"), {"metavar": "FILE", "help": "use FILE as nova.toml (or NOVAD_FILE)"}),
    (
        "namespace",
        ("--namespace",),
        {"metavar": "NAME", "help": "another cluster of the same nova.toml (or NOVAD_NAMESPACE)"},
    ),
    ("profile", ("--profile",), {"metavar": "NAME", "help": "overlay [profile.NAME] (or NOVAD_PROFILE)"}),
    (
        "color",
        ("--color",),
        {"type": click.Choice(["auto", "always", "never"]), "help": "colour: auto, always or never"},
    ),
    ("json", ("--json",), {"is_flag": True, "help": "print JSON (a stream: one document a line)"}),
    (
        "quiet",
        ("-q", "--quiet"),
        {"is_flag": True, "help": "only what was asked for and errors: no progress, no hints"},
    ),
    ("verbose", ("-v", "--verbose"), {"is_flag": True, "help": "print the socket requests too"}),
)


def global_options(*, after_verb: bool, taken: frozenset[str] = frozenset()) -> list[click.Parameter]:
    """Fresh options; after the verb those short names that the verb has not `taken` of -q and -v."""
    made: list[click.Parameter] = []
    for name, spellings, more in GLOBAL_OPTIONS:
        names = [
            spelling
            for spelling in spellings
            if not after_verb
            or ((spelling.startswith("--") or spelling in ("-q", "-v")) and spelling not in taken)
        ]
        if not names:
            continue
        made.append(
            click.Option(
                [*names, f"global_{name}"],
                expose_value=False,
                callback=_remember(name),
                hidden=after_verb,
                is_eager=True,
                **more,
            )
        )
    return made


class VerbCommand(click.Command):
    """One verb. `prefix` holds the arguments an alias stands for."""

    def __init__(self, verb: Verb, name: str, prefix: tuple[str, ...]) -> None:
        taken = frozenset(opt for param in verb.params for opt in (*param.opts, *param.secondary_opts))
        if verb.takes_letters:
            taken |= {"-q", "-v", "-h"}
        super().__init__(
            name,
            params=[*verb.params, *global_options(after_verb=True, taken=taken)],
            help=verb.help,
            short_help=verb.help.split(".")[0],
            callback=click.pass_obj(self.act),
            hidden=verb.hidden,
            context_settings={
                "help_option_names": ["--help"] if "-h" in taken else ["-h", "--help"],
                "ignore_unknown_options": verb.takes_letters,
                "allow_interspersed_args": not verb.takes_letters,
            },
        )
        self.verb = verb
        self.prefix = prefix

    def act(self, app: App, **params: Any) -> int:
        module, _, function = self.verb.action.partition(":")
        action = getattr(importlib.import_module(module), function)
        try:
            return action(app, **params) or 0
        except BrokenPipeError as error:
            raise ReaderGone from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [*self.prefix, *self._with_values(args)])

    def _with_values(self, args: list[str]) -> list[str]:
        """`-w api` is not the interval `api`: an option that may have a value takes no word that is none."""
        optional = {
            name: param for param in self.params if isinstance(param, OptionalValue) for name in param.opts
        }
        words = []
        for word, following in zip_longest(args, args[1:], fillvalue="--"):
            param = optional.get(word)
            is_alone = param is not None and not following.startswith("-") and not _is_value(param, following)
            words.append(f"{param.opts[-1]}={param.alone}" if param is not None and is_alone else word)
        return words

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            for command, meaning in self.verb.examples:
                formatter.write(f"  {command.ljust(44)}  # {meaning}\n")
        formatter.write_paragraph()
        formatter.write_text(self.verb.help)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.verb.aliases:
            names = ", ".join(
                f"{name} (= {self.verb.name} {' '.join(prefix)})" if prefix else name
                for name, prefix in self.verb.aliases.items()
            )
            formatter.write(f"\nAlso called: {names}\n")
        formatter.write("\nGlobal options (-C, -f, --namespace, --profile, --json...): novad --help\n")


def _is_value(param: click.Parameter, word: str) -> bool:
    try:
        param.type.convert(word, param, None)
    except click.BadParameter:
        return False
    return True


class VerbGroup(click.Group):
    """The whole grammar, made from rows; the command of a verb is built when it is asked for."""

    def __init__(self, verbs: Sequence[Verb], **more: Any) -> None:
        super().__init__(**more)
        self.verbs = verbs
        self.by_name: dict[str, tuple[Verb, tuple[str, ...]]] = {verb.name: (verb, ()) for verb in verbs}
        self.by_name |= {name: (verb, prefix) for verb in verbs for name, prefix in verb.aliases.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb.name for verb in self.verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self.by_name.get(cmd_name)
        if found is None:
            return None
        verb, prefix = found
        return VerbCommand(verb, cmd_name, prefix)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.by_name and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise unknown_verb(args[0], list(self.by_name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for verb in self.verbs:
            if not verb.hidden:
                sections.setdefault(verb.section, []).append((verb.name, verb.help.split(". ")[0].rstrip(".")))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_spacing=3)


def unknown_verb(word: str, known: list[str]) -> UsageError:
    import difflib

    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    hint = (
        "did you mean " + " or ".join(f"`{name}`" for name in close) + "?" if close else "novad help lists them"
    )
    return UsageError(f"no such command `{word}`", hint)


def as_novad_error(error: click.ClickException) -> NovadError:
    """click's complaint about a command line in our two lines."""
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "novad --help"
    possible = getattr(error, "possibilities", None)
    if isinstance(error, click.NoSuchOption):
        import difflib

        message = f"no such option `{error.option_name}`"
        close = difflib.get_close_matches(error.option_name, possible or (), n=1)
        if close:
            hint = f"did you mean `{close[0]}`? {hint}"
    kind = UsageError if isinstance(error, click.UsageError) else NovadError
    return kind(message, hint)
