"""`novad init`: a commented nova.toml that runs as it is."""

from __future__ import annotations

from pathlib import Path

from novad.client.app import App
from novad.client.project import FILE_NAME
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


def run(app: App, force: bool) -> int:
    if app.options.file:
        raise UsageError("init writes nova.toml into a directory; -f names a file", "novad -C DIR init")
    path = Path(app.options.directory or ".") / FILE_NAME
    try:
        with path.open("w" if force else "x") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already", "novad init --force overwrites it, novad check reads it"
        ) from None
    except OSError as error:
        raise NovadError(f"{path}: {error.strerror}", "novad -C DIR init") from error
    if app.options.json:
        app.print_json({"path": str(path)})
        return 0
    app.terminal.out(f"wrote {path}")
    app.terminal.note(f"hint: {app.command_name()} up")
    return 0
