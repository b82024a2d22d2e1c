"""Every command that a page shows is run, and prints what the page shows."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest

from novad.client.commands import VERBS
from novad.client.grammar import global_options
from novad.config.manual import keys
from tests.docs.pages import ROOT
from tests.docs.sessions import File, Session, Step, directory, is_shown, parts
from tests.system.client import Project

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
WITH_SESSIONS = [
    page for page in PAGES if any(isinstance(part, Step) for part in parts((ROOT / page).read_text()))
]

# Commands that a page shows and that are not run here, each with its reason.
NOT_RUN = {
    ("README.md", "scripts/novad up"): "it stays on the terminal: tests/system/test_terminal.py",
    ("README.md", "scripts/test"): "it is what runs this test",
}
# What is typed at commands that want a terminal: what to wait for, and the answer.
TYPED = {"novad fg api --pdb": [("(Pdb) ", "p prices\n"), ("(Pdb) ", "q\n"), ("(Pdb) ", "q\n")]}


def prepare(page: str, project: Project) -> None:
    """What a page takes for granted."""
    if page == "README.md":
        # A checkout of this repository; other ones on this machine keep their ports.
        shutil.copy(ROOT / "nova.toml", project.directory)
        project.write('[services.api]\nports = { ec2 = "auto" }\n[services.objectstore]\nports = { s3 = "auto" }\n',
                      "nova.local.toml")  # fmt: skip


@pytest.mark.parametrize("page", WITH_SESSIONS)
def test_the_sessions_of_a_page_are_what_really_happens(page: str) -> None:
    # Not pytest's directory: lines that hold a long path are cut off at the width of a page.
    with tempfile.TemporaryDirectory(prefix="page-") as top, directory(Path(top)) as project:
        prepare(page, project)
        session = Session(project, TYPED)
        todo = list(parts((ROOT / page).read_text()))
        for number, part in enumerate(todo):
            if isinstance(part, File):
                session.write(part)
            elif (page, part.command) not in NOT_RUN:
                _follow(session, part, todo[number + 1] if number + 1 < len(todo) else None)


def _follow(session: Session, step: Step, following: File | Step | None) -> None:
    printed = session.perform(step)
    said = f"$ {step.command}\n{printed}"
    if not (isinstance(following, Step) and following.command == "echo $?"):
        assert session.code == 0, said
    assert not step.shown or is_shown(step.shown, printed), "\n".join([said, "is shown as", *step.shown])


@pytest.mark.parametrize(("page", "command"), NOT_RUN)
def test_a_command_that_is_not_run_is_still_shown(page: str, command: str) -> None:
    shown = [part.command for part in parts((ROOT / page).read_text()) if isinstance(part, Step)]
    assert command in shown
    assert NOT_RUN[page, command]


@pytest.mark.parametrize("command", TYPED)
def test_what_is_typed_belongs_to_a_command_that_is_shown(command: str) -> None:
    assert any(command in (ROOT / page).read_text() for page in WITH_SESSIONS)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["api  ready  17487  0.9s"], "api   ready  5  12.25s\n", True),
        (["api  ready"], "api  failed\n", False),
        (["a", "...", "z"], "a\nb\nc\nz\n", True),
        (["a", "...", "z"], "a\nz\n", True),
        (["a", "z"], "a\nb\nz\n", False),
        (["error: ... (code 3)"], "error: what it was (code 127)\n", True),
        (["a"], "a\nb\n", False),
    ],
)
def test_what_is_shown_is_compared_with_numbers_and_dots_as_wildcards(
    shown: list[str], printed: str, same: bool
) -> None:
    assert is_shown(shown, printed) == same


def test_a_pid_of_a_page_is_the_real_one_or_its_command_is_not_run(tmp_path: Path) -> None:
    session = Session(Project(tmp_path, tmp_path), {})
    printed = session.perform(Step("echo 'api ready 312 5s'", ["api ready 17487 0.9s"]))
    assert is_shown(["api ready 17487 0.9s"], printed)
    assert session.perform(Step("echo kill 17487")) == "kill 312\n"
    with pytest.raises(AssertionError, match="not run"):
        session.perform(Step("echo kill 17500"))


# -- commands in the middle of a sentence, in tables, in files of CI systems

NOVAD = re.compile(r"(?<![\w/.-])(?:scripts/)?novad((?: +(?:'[^']*'|[^\s`#'\"|]+))+)")
ALIASES = {name: verb for verb in VERBS for name in (verb.name, *verb.aliases)}
GLOBAL = {word for param in global_options(after_verb=False) for word in (*param.opts, *param.secondary_opts)}


def inline(text: str) -> list[str]:
    """Everything that is written as code and begins with `novad `, without its first word."""
    # A fence before a single tick: what is in it is looked at line by line.
    fences = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    code = [line for fence in fences for line in fence.splitlines() if not line.startswith("#")]
    code += [line for line in rest.splitlines() if line.startswith("    ")]
    code += re.findall(r"`([^`]+)`", rest)
    return [found.strip() for line in code for found in NOVAD.findall(line)]


def fault(words: list[str]) -> str:
    """What of a command line does not exist; empty where all does."""
    while words and words[0].startswith("-"):
        option = words.pop(0).partition("=")[0]
        if option not in GLOBAL | {"--help", "-h", "--version"}:
            return option
        if option in ("-C", "-f", "--file", "--namespace", "--profile", "--color") and words:
            words.pop(0)
    if not words or not words[0].islower() or not words[0].isalpha():
        return ""  # a state of things, not a command: `novad (down)`
    verb = ALIASES.get(words[0])
    if verb is None:
        return words[0]
    known = (
        GLOBAL
        | {word for param in verb.params for word in (*param.opts, *param.secondary_opts)}
        | {"--help", "-h"}
    )
    for word in words[1:]:
        if word == "--":
            break
        if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word) and not verb.takes_letters:
            option = word.partition("=")[0]
            if option not in known and not (option[1] != "-" and option[:2] in known):
                return f"{words[0]} {option}"
    return ""


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_every_command_in_a_sentence_exists_with_its_options(page: str) -> None:
    found = inline((ROOT / page).read_text())
    assert [line for line in found if fault(line.split())] == []


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert [fault(line.split()) for line in inline("`novad fly`, `novad up --sideways`, `novad --wrong up`")] == [
        "fly",
        "up --sideways",
        "--wrong",
    ]
    assert sum(len(inline((ROOT / page).read_text())) for page in PAGES) > 150


def test_the_page_for_newcomers_names_only_keys_that_exist() -> None:
    known = {part for key in keys() for part in key.split(".")}
    named = re.findall(r"`([a-z_]+) = ", (ROOT / "docs/coming-from.md").read_text())
    assert len(named) > 5
    assert [key for key in named if key not in known] == []
