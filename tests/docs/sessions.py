"""The sessions that the pages show: their files, their commands, and what these print.

A page is followed from top to bottom in a directory of its own. A file is a fenced block under a line "`name`...:"; a
session is a fenced block of `console`, or an indented one, that begins with `$ `. In what is shown, numbers stand for
any number, a line `...` for any lines and `...` within a line for any text; a command without output promises success
alone. A number of five digits that a session shows (a pid) means in later commands the one that was printed in its
place; a command with one that means nothing is not run, for it would name a process of somebody else. What follows
` # ` in a command is a remark.

`python -m tests.docs.sessions docs/tutorial.md` prints the page's sessions as they really are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pexpect

from tests.docs.pages import ROOT
from tests.system.client import Project, new_project

STEP_S = 120.0
FILE = r"^`(?P<name>[\w./-]+)`[^\n]*:\n\n```(?!console)\w+\n(?P<content>.*?)^```$"
FENCED = r"^```console\n(?P<fenced>\$ .*?)^```$"
INDENTED = r"(?<=\n\n)(?P<indented>    \$ .*?\n)(?=\n\S|\n\n|\Z)"
PARTS = re.compile(f"{FILE}|{FENCED}|{INDENTED}", re.M | re.S)
NUMBER = re.compile(r"\d+(?:\.\d+)*")
PROGRESS = re.compile(r"\d\d\.\d ")
PID = re.compile(r"\b\d{5,}\b")


@dataclass
class Step:
    """A command with the lines that the page shows under it."""

    command: str
    shown: list[str] = field(default_factory=list)


@dataclass
class File:
    name: str
    content: str


def parts(text: str) -> Iterator[File | Step]:
    """What a reader of the page does, in order."""
    for match in PARTS.finditer(text):
        if match["name"]:
            yield File(match["name"], match["content"])
            continue
        block = match["fenced"] or re.sub(r"^    ", "", match["indented"], flags=re.M)
        step: Step | None = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line.removeprefix("$ ").partition(" # ")[0].rstrip())
            elif step is not None:
                step.shown.append(line)
        if step is not None:
            yield step


CRITICAL = re.compile(r" \(critical: [^)]*\)")


def is_shown(shown: list[str], printed: str) -> bool:
    """Whether `printed` is what the page shows."""
    while shown and not shown[-1].strip():
        shown = shown[:-1]
    # Which path was critical, and whether there was one worth a word, depends on the machine.
    pattern = "".join(_pattern(CRITICAL.sub("", line)) for line in shown)
    return re.fullmatch(pattern + r"\s*", CRITICAL.sub("", printed.rstrip()) + "\n") is not None


def _pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    if PROGRESS.match(line):
        # Which states of a start are seen depends on the machine.
        return r"(?:\d\d\.\d .*\n)*"
    pieces = []
    for piece in re.split(r"(\.\.\.|\s+)", line.strip()):
        if piece == "...":
            pieces.append(".*")
        elif not piece.strip():
            pieces.append(r"\s+" if piece else "")
        else:
            pieces.append(r"[\d.]+".join(re.escape(word) for word in NUMBER.split(piece)))
    return r"\s*" + "".join(pieces) + r"\s*\n"


@contextmanager
def directory(top: Path) -> Iterator[Project]:
    """A directory called `shop` for the reader of one page; whatever runs out of it is ended afterwards."""
    folder = top / "shop"
    folder.mkdir()
    with new_project(folder) as project:
        try:
            yield project
        finally:
            for config in sorted(folder.glob("*/nova.toml")):
                for namespace in ("default", "trial"):
                    project.novad("-C", str(config.parent), "--namespace", namespace, "down", "--kill")
            # Where the page has its clusters below, there is none to end here.
            (folder / "nova.toml").touch()


class Session:
    """A reader in a directory of their own. `on_terminal` holds what is typed at commands that want a terminal."""

    def __init__(self, project: Project, on_terminal: dict[str, list[tuple[str, str]]]) -> None:
        self.project = project
        self._on_terminal = on_terminal
        self._meant: dict[str, str] = {}
        self._code = 0
        project.environ |= {
            "PATH": f"{Path(sys.executable).parent}:{project.environ['PATH']}",
            "VIRTUAL_ENV": sys.prefix,
            "COLUMNS": "100",
            "TERM": "dumb",
        }

    def write(self, file: File) -> None:
        path = self.project.directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)

    def perform(self, step: Step) -> str:
        """What the command prints, on both streams. Its exit code is what a following `$ echo $?` prints."""
        command = PID.sub(lambda match: self.meant(match[0]), step.command)
        command = command.replace("scripts/novad", f"{ROOT}/scripts/novad")
        if command in self._on_terminal:
            return self._type(command)
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                ["sh", "-c", f"(exit {self._code}); {command}"], cwd=self.project.directory, env=self.project.environ,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=STEP_S,
            )  # fmt: skip
            output.seek(0)
            printed = output.read()
        self._code = done.returncode
        self._learn(step.shown, printed)
        return printed

    @property
    def code(self) -> int:
        return self._code

    def _type(self, command: str) -> str:
        environ = {**self.project.environ, "TERM": "xterm-256color", "NO_COLOR": "1"}
        child = pexpect.spawn(
            "sh", ["-c", command], cwd=str(self.project.directory), env=environ, dimensions=(40, 100), timeout=60,
            encoding="utf-8",
        )  # fmt: skip
        printed = ""
        try:
            for awaited, typed in self._on_terminal[command]:
                child.expect_exact(awaited)
                printed += f"{child.before}{child.after}"
                child.send(typed)
            child.expect(pexpect.EOF)
            child.wait()
            self._code = child.exitstatus if child.exitstatus is not None else 128
            return (printed + str(child.before)).replace("\r\n", "\n")
        finally:
            child.close(force=True)

    def meant(self, pid: str) -> str:
        """The real pid for one that the page shows. Raises `AssertionError` where none was printed in its place."""
        assert pid in self._meant, f"{pid} was shown by no session of this page: not run"
        return self._meant[pid]

    def _learn(self, shown: list[str], printed: str) -> None:
        """Which real pid a shown one stands for: the word in the same place of the line that begins alike."""
        really = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
        for line in shown:
            words = line.split()
            found = really.get(words[0], []) if words else []
            for word, real in zip(words, found, strict=False):
                if PID.fullmatch(word) and real.isdigit():
                    self._meant[word] = real


def transcribe(page: str, project: Project, on_terminal: dict[str, list[tuple[str, str]]]) -> None:
    """Print the sessions of a page as they are."""
    session = Session(project, on_terminal)
    for part in parts((ROOT / page).read_text()):
        if isinstance(part, File):
            session.write(part)
            continue
        printed = session.perform(part)
        print(f"$ {part.command}\n{printed.rstrip()}".rstrip())
        print(f"    [exit {session.code}]" * (session.code != 0), end="\n" * (session.code != 0))
        if part.shown and not is_shown(part.shown, printed):
            print("    [shown otherwise]")


if __name__ == "__main__":
    from tests.docs.test_sessions import TYPED, prepare

    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory(prefix="novad-page-") as top, directory(Path(top)) as made:
            prepare(name, made)
            transcribe(name, made, TYPED)
