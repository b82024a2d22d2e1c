"""`novad init`: a commented nova.toml that runs as it is, or what the file of another tool says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from novad.client.app import App
from novad.client.carry import compose, process_compose, procfile, pyproject, supervisor
from novad.client.carry.draft import Carried, settled, toml
from novad.client.project import FILE_NAME
from novad.client.render.words import plural
from novad.core.errors import NovadError, UsageError

TEMPLATE = """\
# What novad runs here. `novad up` starts it, `novad check --explain KEY` explains a key.

[services]
# One line is a whole service. ${port} is one free port, the same each time in this directory.
web = "python -m http.server ${port} --bind 127.0.0.1"

# A table says more. Uncomment and adapt:
#
# [services.worker]
# command  = ["python", "worker.py"]     # a list is executed as it is; a string is split without a shell
# after    = ["web"]                     # starts once web is ready
# replicas = 2                           # worker.1 and worker.2; ${n} is the number
# env      = { LOG_LEVEL = "debug" }
# ready    = { log = "consuming" }       # also: http = "/healthz", tcp = "http", notify = true, exec = [...]
# restart  = "on-failure"                # or "always", "no"
# stop     = { signal = "TERM", timeout = "10s" }
#
# [services.migrate]
# command = "python manage.py migrate"
# oneshot = true                         # runs once; what comes after it waits until it is done

# [env]                                  # for every service
# DATABASE_URL = "sqlite:///${dir}/dev.sqlite"

# [profile.ci.services.web]              # changes for `novad --profile ci up`
# env = { LOG_LEVEL = "info" }
"""


# In this order: what says most about how to start the programs comes first.
SOURCES: tuple[tuple[str, Callable[[str, list[str]], Carried]], ...] = (
    *((name, lambda text, _: process_compose.read(text)) for name in ("process-compose.yaml", "process-compose.yml")),
    ("Procfile", procfile.read),
    ("supervisord.conf", lambda text, _: supervisor.read(text)),
    *((name, lambda text, _: compose.read(text)) for name in (
        "compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")),
    (pyproject.NAME, lambda text, _: pyproject.read(text)),
)  # fmt: skip


def run(app: App, source: str | None, force: bool) -> int:
    if app.options.file:
        raise UsageError("init writes nova.toml into a directory; -f names a file", "novad -C DIR init")
    folder = Path(app.options.directory or ".")
    path = folder / FILE_NAME
    carried = found_source(folder, source)
    try:
        with path.open("w" if force else "x") as file:
            file.write(toml(carried) if carried else TEMPLATE)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already", "novad init --force overwrites it, novad check reads it"
        ) from None
    except OSError as error:
        raise NovadError(f"{path}: {error.strerror}", "novad -C DIR init") from error
    remarks = list(carried.remarks) if carried else []
    if app.options.json:
        app.print_json({"path": str(path), "source": carried.source if carried else None, "not_carried": remarks})
        return 0
    told = f" with {plural(len(carried.services), 'service')} from {carried.source}" if carried else ""
    app.terminal.out(f"wrote {path}{told}")
    for remark in remarks:
        app.terminal.note(f"not carried over: {remark}")
    app.terminal.note(f"hint: {app.command_name()} {'check' if carried else 'up'}")
    return 0


def found_source(folder: Path, source: str | None) -> Carried | None:
    """What the file of another tool says: `source`, else the first that is there. Raises `NovadError`."""
    if source == "none":
        return None
    if source is not None:
        kind = next((read for name, read in SOURCES if name == Path(source).name), None)
        if kind is None:
            raise UsageError(
                f"--from {source}: it is not known what this is", f"one of {', '.join(known_names())}"
            )
        return read_source(folder / source, kind)
    for name, read in SOURCES:
        if (folder / name).is_file():
            carried = read_source(folder / name, read)
            if carried.services or name != pyproject.NAME:  # most projects have one, and few of them scripts
                return carried
    return None


def known_names() -> list[str]:
    return [name for name, _ in SOURCES]


def read_source(path: Path, read: Callable[[str, list[str]], Carried]) -> Carried:
    try:
        text = path.read_text()
        siblings = [item.name for item in path.parent.iterdir()]
        return replace(settled(read(text, siblings)), source=path.name)
    except OSError as error:
        raise NovadError(f"{path}: {error.strerror}", "novad init --from none") from error
    except ValueError as error:
        raise NovadError(f"{path}: {error}", "novad init --from none writes an example instead") from error
