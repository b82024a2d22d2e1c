"""Which cluster a command is about: the nearest nova.toml upwards, or the one the user names.

Finding it reads nothing but directory entries; whoever starts a daemon makes the directories (`launch`). A
cluster whose nova.toml was deleted can still be stopped: an explicit file need not exist for that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from novad.core.errors import ConfigError, UsageError
from novad.core.place import DEFAULT_NAMESPACE, Place, place

FILE_NAME = "nova.toml"
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def find_place(
    environ: Mapping[str, str],
    directory: str | None,
    file: str | None,
    namespace: str | None,
    *,
    missing_ok: bool,
) -> Place:
    """The place of the cluster that `-C directory`, `-f file`, `--namespace` and the environment mean.

    `missing_ok` accepts a named file that does not exist (any more). Raises `ConfigError` where there is no
    configuration file, `UsageError` for a bad namespace or directory.
    """
    try:
        start = Path(directory) if directory else Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            "the current directory does not exist any more", "cd to one that does, or novad -C DIR"
        ) from None
    if not start.is_dir():
        raise UsageError(f"{directory}: not a directory", "-C takes the directory of a project")
    named = file or environ.get("NOVAD_FILE")
    config = start / named if named else nearest(start)
    if config is None:
        raise ConfigError(
            f"no {FILE_NAME} in {start.resolve()} nor above it",
            "novad init writes one, novad -C DIR or -f FILE names another",
        )
    if config.is_dir():
        config = config / FILE_NAME
    if not (missing_ok or config.is_file()):
        raise ConfigError(f"{config}: no such file", "novad init writes one, novad -f FILE names another")
    chosen = namespace or environ.get("NOVAD_NAMESPACE") or DEFAULT_NAMESPACE
    if not NAMESPACE.fullmatch(chosen):
        raise UsageError(
            f"namespace `{chosen}`: only letters, digits, dot, dash and underscore, at most 64",
            "novad --namespace ci status",
        )
    runtime_dir = environ.get("XDG_RUNTIME_DIR") or None
    return place(os.path.realpath(config), chosen, runtime_dir, temporary_dir(runtime_dir), os.getuid())


def temporary_dir(runtime_dir: str | None) -> str:
    """Where sockets go without a runtime directory; the import costs milliseconds and is not made for nothing."""
    if runtime_dir:
        return ""
    import tempfile

    return tempfile.gettempdir()


def nearest(start: Path) -> Path | None:
    """The nova.toml in `start` or the closest directory above it."""
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None
