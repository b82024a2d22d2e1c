"""`novad svc`: daemontools' letters (svc(8) of daemontools-encore), applied in the order they are typed."""

from __future__ import annotations

from typing import Any

from novad.client.app import App
from novad.client.link import Link
from novad.client.verbs.control import report_stopped, wait_for_the_end
from novad.core.errors import UsageError

SIGNALS = {
    "t": "TERM",
    "h": "HUP",
    "a": "ALRM",
    "i": "INT",
    "q": "QUIT",
    "k": "KILL",
    "1": "USR1",
    "2": "USR2",
    "w": "WINCH",
    "p": "STOP",
    "c": "CONT",
}
LETTERS = {*SIGNALS, "u", "d", "o", "x", "+"}


def parse(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Letters in order, and names. Raises `UsageError`."""
    letters = [letter for word in words if word.startswith("-") for letter in word[1:]]
    names = [word for word in words if not word.startswith("-")]
    for letter in letters:
        if letter not in LETTERS:
            raise UsageError(f"svc has no letter `{letter}`", f"letters: {' '.join(sorted(LETTERS))}")
    if not letters or not names:
        raise UsageError("svc needs letters and services", "novad svc -t api")
    return letters, names


def run(app: App, words: tuple[str, ...]) -> int:
    """As svc, silent where all went well; `--json` tells each letter's answer."""
    letters, names = parse(words)
    to_group = "+" in letters
    done: list[dict[str, Any]] = []
    with app.link() as link:
        for letter in letters:
            if letter == "x":
                return end(app, link, names)
            if letter != "+":
                done.append({"letter": letter, **act(link, letter, names, to_group)})
    if app.options.json:
        app.print_json({"done": done})
    return 0


def act(link: Link, letter: str, names: list[str], to_group: bool) -> dict[str, Any]:
    if letter in SIGNALS:
        return link.request("signal", names=names, signal=SIGNALS[letter], group=to_group)
    if letter == "d":
        return link.request("stop", None, names=names, timeout_s=None, kill=False)
    return link.request("start", names=names, once=letter == "o", deps=False)


def end(app: App, link: Link, names: list[str]) -> int:
    """-x: the named go down; when nothing else runs, the daemon ends too, as supervise ends with its service."""
    reply = link.request("stop", None, names=names, timeout_s=None, kill=False)
    if any(item.get("pid") for item in link.request("status", names=[], usage=False)["processes"]):
        return report_stopped(app, reply)
    link.request("down", None, timeout_s=None, kill=False)
    wait_for_the_end(link)
    return report_stopped(app, reply, "the cluster is down")
