"""The command of `novad run`: whether it can be run at all, told before a cluster is started for it."""

from __future__ import annotations

import difflib
import os
import shutil

from novad.client.app import App

NOT_EXECUTABLE, NOT_FOUND = 126, 127


def unrunnable(app: App, program: str) -> int | None:
    """The exit code where the command cannot be run, found out before a cluster is started for it."""
    if shutil.which(program, path=app.environ.get("PATH")):
        return None
    exists = os.path.exists(program) and "/" in program
    reason = "no such command" if not exists else "a directory" if os.path.isdir(program) else "not executable"
    app.terminal.err(f"error: {program}: {reason}; nothing was started")
    if not exists:
        hint = nearby(program, app.environ.get("PATH", os.defpath))
    else:
        hint = (
            f"{app.command_name()} run -- {program}/PROGRAM" if os.path.isdir(program) else f"chmod +x {program}"
        )
    app.terminal.err(f"hint: {hint}")
    return NOT_EXECUTABLE if exists else NOT_FOUND


def nearby(program: str, path: str) -> str:
    """Where a `program` that is not found may be: the file here, the nearest one, or where it was looked for."""
    if "/" in program:
        folder = os.path.dirname(os.path.abspath(program))
        near = nearest_file(os.path.basename(program), [folder])
        return f"did you mean {os.path.dirname(program)}/{near}?" if near else f"look into {folder}"
    if os.path.isfile(program):
        return f"there is a file of this name here: ./{program}"
    near = nearest_file(program, path.split(os.pathsep))
    return f"did you mean {near}?" if near else f"it is in no directory of PATH: {path}"


def nearest_file(name: str, folders: list[str]) -> str | None:
    """The name of an executable in `folders` that `name` most likely means."""
    known = {
        entry
        for folder in folders if os.path.isdir(folder)
        for entry in os.listdir(folder) if os.access(os.path.join(folder, entry), os.X_OK)
    }  # fmt: skip
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)
