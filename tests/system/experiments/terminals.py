"""What services say, where a terminal would obey it."""

from __future__ import annotations

import json
import re
import sys
import termios

import pexpect

from tests.system.board import experiment, require
from tests.system.site import Site

PAYLOADS = (
    "\x1b]0;owned\x07", "\x1b]2;owned\x1b\\", "\x1b]52;c;b3duZWQ=\x07", "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "\x1b]4;1;#ff0000\x07", "\x1b]10;?\x07", "\x1b]1337;File=:AAAA\x07", "\x1bPq#0;2;0;0;0\x1b\\", "\x1b_Gf=24\x1b\\",
    "\x1b^private\x1b\\", "\x1b[2J\x1b[H", "\x1b[1000D\x1b[K", "\x1b[10A", "\x1b[?1049h", "\x1b[?25l", "\x1b[?1000h",
    "\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b[21t", "\x1b[5i", "\x1b[8;1;1t", "\x1b[3;3r", "\x1b[4h", "\x1b[20h", "\x1bc",
    "\x1b(0", "\x1b#8", "\x1b7\x1b8", "\x1b[31mred for ever", "\x1b[8mhidden", "\x9b2J", "\x9d0;owned\x9c", "\x90q\x9c",
    "over\rwritten", "\x08\x08\x08", "\x07\x07", "\x0e\x0f", "\x0b\x0c", "\x7f", "\x05", "\u202etxt.exe",
    "\u2066\u2069", "\u200b\ufeff", "\u2028\u2029", "\ud7ff\ue000", "ESC \x1b", "\x1b\x1b[2J", "\x1b[\x1b[31m2J",
    "\x84\x85\x8d",
)  # fmt: skip
TALKER = """
import os, signal, socket, sys
said = sys.argv[1]
sys.stdout.buffer.write(said.encode() + b"\\n" + said.encode("latin-1", "replace") + b"\\n")
sys.stdout.flush()
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.sendto(("STATUS=" + said + "\\nREADY=1").encode(), os.environ["NOTIFY_SOCKET"])
signal.pause()
"""
CRASHER = """
import sys
sys.stderr.buffer.write(sys.argv[1].encode() + b"\\n")
sys.exit(sys.argv[1])
"""
# What novad itself may send besides text: colours, and in live views where to write.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MOVES = re.compile(r"\x1b\[(?:\d*A|J|K|H|\?25[lh])|\r(?!\n)")
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\r(?!\r*\n)"
)


def _write(site: Site, payloads: tuple[str, ...], level: str) -> None:
    tables = [
        f"""[services.s{number}]
command = [{json.dumps(sys.executable)}, "{site.folder}/talker.py", {json.dumps(text)}]
ready = {{ notify = true }}
description = {json.dumps(text)}
url = {json.dumps("http://" + text)}
env = {{ SAID = {json.dumps(text)}, LEVEL = "{level}" }}
[services.c{number}]
command = [{json.dumps(sys.executable)}, "{site.folder}/crasher.py", {json.dumps(text)}]
restart = "no"
[services.m{number}]
command = [{json.dumps("/no/such/" + text)}]
restart = "no"
"""
        for number, text in enumerate(payloads)
    ]
    (site.folder / "talker.py").write_text(TALKER)
    (site.folder / "crasher.py").write_text(CRASHER)
    site.write_config("".join(tables))


LOOKED_AT = (
    ("status",), ("status", "-o", "wide"), ("status", "all"), ("status", "--timeline"), ("status", "--graph"),
    ("why", "--all"), ("logs", "-n", "1000"), ("logs", "--stderr", "-n", "1000"), ("status", "--env", "s*"),
    ("check", "--show", "s1"), ("check", "--show", "m0"), ("reload", "--dry-run"), ("-v", "signal", "WINCH", "s*"),
    ("stop", "no\x1b]0;owned\x07such"), ("up", "s*"), ("status", "-w"),
)  # fmt: skip


@experiment(
    "R33",
    "terminal sequences in all that services say and are",
    short={"count": 12},
    full={"count": len(PAYLOADS)},
    controls={"the log as it is": {"count": 4, "raw": True}},
)
def sequences(site: Site, count: int, raw: bool = False) -> str:
    """On a terminal nothing of it arrives but text and colour, and colours end."""
    payloads = PAYLOADS[:: max(1, len(PAYLOADS) // count)][:count]
    _write(site, payloads, "info")
    site.novad("up", "-d", "--timeout", "60").communicate(timeout=90)
    _write(site, payloads, "debug")
    outputs = {" ".join(words): _look(site, words) for words in LOOKED_AT}
    if raw:
        outputs["cat"] = _run(site, ["cat", str(site.folder / ".novad/logs/s0.log")], live=False)
    for name, text in outputs.items():
        live = name in ("up s*", "status -w")
        rest = COLOURS.sub("", MOVES.sub("", text) if live else text)
        found = UNSAFE.search(rest)
        around = rest[max(0, found.start() - 40) : found.end() + 20] if found else ""
        require(found is None, f"{name}: only text and colour arrive: {around!r}")
        codes = COLOURS.findall(text)
        require(not codes or codes[-1] in ("\x1b[0m", "\x1b[m"), f"{name}: colours end: {codes[-1:]!r}")
        require("\x1b[8m" not in text, f"{name}: nothing is hidden")
    seen = sum(text.count("owned") for text in outputs.values())
    require(seen > 10, f"the payloads were there: {seen}")
    return f"{len(payloads)} payloads in 8 places each, {len(outputs)} commands: 0 obeyed, {seen} shown as text"


def _look(site: Site, words: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "novad", "--color", "always", "-f", "nova.toml", *words]
    return _run(site, command, live=words[0] == "up" or "-w" in words)


def _run(site: Site, command: list[str], live: bool) -> str:
    """What a terminal gets; a live view is left after its first screen."""
    environ = {**site.surroundings(), "TERM": "xterm-256color"}
    environ.pop("NO_COLOR")
    child: pexpect.spawn[str] = pexpect.spawn(
        command[0], command[1:], cwd=str(site.folder), env=environ, dimensions=(50, 120), encoding="utf-8",
        codec_errors="surrogateescape", timeout=60,
    )  # fmt: skip
    attributes = termios.tcgetattr(child.child_fd)
    # A Ctrl-C throws away what the terminal has not shown yet, in the middle of a sequence too (termios(3)).
    attributes[3] |= termios.NOFLSH
    termios.tcsetattr(child.child_fd, termios.TCSANOW, attributes)
    try:
        text = ""
        if live:
            child.expect("ready")
            text = f"{child.before}{child.after}"
            child.sendintr()
        child.expect(pexpect.EOF)
        return text + str(child.before)
    finally:
        child.close(force=True)
