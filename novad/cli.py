"""The command line: arguments -> a verb of the table -> an exit code.

Every failure a user can cause ends here as `error: ...`, `hint: ...` and a documented exit code; anything else
is a defect of novad, told in one line with the file that holds the traceback. The configuration compiler is
imported by the verbs that need it, when they need it: `novad status` must not pay for it.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from novad import __version__
from novad.client.app import App, Options
from novad.client.commands import VERBS
from novad.client.grammar import ReaderGone, VerbGroup, as_novad_error, global_options
from novad.core.errors import NovadError
from novad.core.place import Place

if TYPE_CHECKING:
    from novad.core.spec import Cluster

INTERRUPTED = 130


class ConfigCompiler:
    """The compiler's floor, opened when a verb asks."""

    def compile(
        self,
        place: Place,
        *,
        profile: str | None,
        overrides: dict[str, str],
        taken_ports: dict[str, int],
        scale: dict[str, int],
        taken_scale: dict[str, int] | None = None,
        environ: Mapping[str, str],
        is_isolated: bool = False,
    ) -> Cluster:
        from novad.config.load import compile_cluster

        return compile_cluster(
            place.config,
            namespace=place.namespace,
            profile=profile,
            overrides=overrides,
            environ=environ,
            run_dir=place.run_dir,
            state_dir=place.state_dir,
            log_dir=place.log_dir,
            taken_ports=taken_ports,
            scale=scale,
            taken_scale=taken_scale,
            is_isolated=is_isolated,
        )

    def show(
        self,
        place: Place,
        name: str,
        *,
        profile: str | None,
        taken_ports: dict[str, int],
        environ: Mapping[str, str],
    ) -> list[tuple[str, str, str]]:
        from novad.config.explain import show
        from novad.config.load import Request, compile_with_origins

        request = Request(
            place.config,
            place.namespace,
            environ,
            place.run_dir,
            place.state_dir,
            place.log_dir,
            profile,
            taken_ports=taken_ports,
        )
        return [(row.key, row.value, row.origin) for row in show(compile_with_origins(request), name)]

    def explain(self, key: str) -> str:
        from novad.config.manual import manual

        return manual(key)

    def schema(self) -> dict[str, Any]:
        from novad.config.manual import schema

        return schema()


class Main(VerbGroup):
    """The `novad` command. `main` never lets an exception out: it exits with a documented code."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **_more: Any
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a shape shows a question mark; it is no reason to fail.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        sys.exit(self.run_words(words, App(Options(), ConfigCompiler(), self.run_words)))

    def run_words(self, words: list[str], app: App) -> int:
        """The exit code of one command line."""
        return guarded(lambda: super(Main, self).main(words, "novad", standalone_mode=False, obj=app), app)


def guarded(act: Any, app: App) -> int:
    """The exit code of `act()`, with what went wrong told on stderr."""
    try:
        try:
            return act() or 0
        except click.ClickException as error:
            raise as_novad_error(error) from error
    except NovadError as error:
        tell(error, app)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        app.terminal.err("")
        return INTERRUPTED
    except (BrokenPipeError, ReaderGone):
        # The reader had enough (`novad logs | head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return confess(error, app)


def tell(error: NovadError, app: App) -> None:
    paint = app.terminal.err_paint
    render = getattr(error, "render", None)
    if callable(render):
        app.terminal.err(render(color=paint.on, width=app.terminal.width()))
    else:
        app.terminal.err(f"{paint('error:', 'red bold')} {error.message}")
    if error.hint:
        app.terminal.err(f"{paint('hint:', 'cyan')} {error.hint}")


def confess(error: Exception, app: App) -> int:
    """A defect of novad: one line, and the traceback in a file."""
    import tempfile
    import traceback

    name = f"novad-error-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    where = "nowhere: no directory could be written"
    for folder in (state_dir(app), tempfile.gettempdir()):
        try:
            if folder:
                path = Path(folder) / name
                path.write_text(f"novad {__version__}: {sys.argv}\n{text}")
                where = str(path)
                break
        except OSError:
            continue
    summary = (str(error).splitlines() or [""])[0]
    app.terminal.err(f"error: novad failed: {type(error).__name__}: {summary}")
    app.terminal.err(f"hint: this is a defect of novad; its traceback is in {where}")
    return 1


def state_dir(app: App) -> str | None:
    try:
        return app.place().state_dir
    except (NovadError, OSError):
        return None


@click.pass_context
def start(ctx: click.Context) -> int:
    """Without a verb: the shell where a cluster runs, else what can be typed."""
    if ctx.invoked_subcommand:
        return 0
    app = ctx.ensure_object(App)
    if app.terminal.out_is_terminal and sys.stdin.isatty() and is_up(app):
        from novad.client.verbs.meta import shell

        return shell(app, keep_going=False)
    from novad.client.verbs.meta import welcome

    app.terminal.out(welcome(app))
    return 0


def is_up(app: App) -> bool:
    try:
        app.link_at_once().close()
    except NovadError:
        return False
    return True


def print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"novad {__version__}")
        ctx.exit()


main = Main(
    VERBS,
    name="novad",
    callback=start,
    invoke_without_command=True,
    params=[
        *global_options(after_verb=False),
        click.Option(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help="print the version",
            callback=print_version,
        ),
    ],
    help="Runs the processes of a development cluster, described in nova.toml.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
