"""A Python command -> the same command under pdb. Reads the first line of scripts, changes nothing.

`python -m pdb -c continue`, so that it runs until a breakpoint or an exception.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from novad.core.errors import UsageError

PDB = ("-m", "pdb", "-c", "continue")
PYTHON = re.compile(r"^(python|pypy)[0-9.]*$")
# Options of python(1) that take a word of their own.
WITH_WORD = ("-W", "-X", "--check-hash-based-pycs")


def under_pdb(argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> list[str]:
    """`argv` under pdb. Raises `UsageError` where it is no Python program that pdb can run."""
    program = argv[0]
    if PYTHON.match(os.path.basename(program)):
        return [program, *_with_pdb(list(argv[1:]))]
    path = shutil.which(os.path.join(cwd, program) if "/" in program else program, path=env.get("PATH"))
    interpreter = shebang(path) if path else []
    if path is None or not any(PYTHON.match(os.path.basename(word)) for word in interpreter):
        raise UsageError(
            f"--pdb: {program} is not a Python program", "without --pdb its own debugger can be used"
        )
    return [*interpreter, *PDB, path, *argv[1:]]


def _with_pdb(words: list[str]) -> list[str]:
    """The options of the interpreter, pdb, then what it ran: `-m module` or a script."""
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "-m":
        if words[index] == "-" or words[index].startswith("-c"):
            raise UsageError(
                f"--pdb: pdb cannot run `python {words[index]}`", "put the code into a file or a module"
            )
        index += 2 if words[index] in WITH_WORD else 1
    if index >= len(words):
        raise UsageError("--pdb: the command names no script and no module", "novad check --show SVC shows it")
    return [*words[:index], *PDB, *words[index:]]


def shebang(path: str) -> list[str]:
    """The words of the first line of a script; nothing for anything else."""
    try:
        with open(path, "rb") as file:
            line = file.readline(1024)
    except OSError:
        return []
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    return (
        words[1:] if words and os.path.basename(words[0]) == "env" and words[1:2] != ["-S"] else _split_env(words)
    )


def _split_env(words: list[str]) -> list[str]:
    """`/usr/bin/env -S python -u` is written for the words behind -S."""
    return words[2:] if words[1:2] == ["-S"] else words
