"""Pictures of a terminal for the README, made from a real run: `python -m tests.docs.pictures` (scripts/pictures).

Each is an SVG of text with the colours that the command sent, so that it is sharp, small, and its words can be read by
a test, which holds them against what the command prints now.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from tests.docs.pages import ROOT
from tests.docs.sessions import directory
from tests.system.client import Project

FOLDER = ROOT / "docs/pictures"
COLUMNS = 80
SHOP = """\
[services.db]
command = ["sh", "-c", "sleep 0.2; echo accepting connections; exec sleep 1000"]
ready = { log = "accepting" }

[services.migrate]
command = ["sh", "-c", "sleep 0.1"]
oneshot = true
after = ["db"]

[services.api]
command = ["python3", "-u", "-m", "http.server", "${port}", "--bind", "127.0.0.1"]
ready = { http = "/" }
after = ["migrate"]

[services.worker]
command = ["sh", "-c", "echo consuming; exec sleep 1000"]
ready = { log = "consuming" }
after = ["db", "api"]
replicas = 2

[services.mailer]
command = ["python3", "-u", "mailer.py"]
after = ["api"]
restart = "no"
autostart = false
"""
MAILER = """\
import sys
print("connecting to the mail server", file=sys.stderr)
host = {"user": "shop"}["host"]
"""
WRONG = """\
[services.web]
command = "python -m http.server ${prot}"
redy = { http = "/" }

[services.worker]
command = "python worker.py"
after = ["wbe"]
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """What is typed, for which nova.toml, and what nobody sees before it."""

    command: str
    config: str
    code: int = 0
    before: str = ""


# In the order in which they are taken: a later one sees what an earlier one started.
SHOTS = {
    "up": Shot("novad up -d", SHOP),
    "status": Shot("novad status", SHOP, before="novad start mailer"),
    "why": Shot("novad why", SHOP),
    "config-error": Shot("novad check", WRONG, 78),
}


def take(project: Project) -> Iterator[tuple[str, str]]:
    """The name of each picture and what its command prints, in colour."""
    (project.directory / "mailer.py").write_text(MAILER)
    environ = {**project.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    for name, shot in SHOTS.items():
        (project.directory / "nova.toml").write_text(shot.config)
        if shot.before:
            subprocess.run(["sh", "-c", shot.before], cwd=project.directory, env=environ, capture_output=True)
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                ["sh", "-c", shot.command], cwd=project.directory, env=environ, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, timeout=60,
            )  # fmt: skip
            output.seek(0)
            printed = output.read()
        assert done.returncode == shot.code, printed
        yield name, printed
    (project.directory / "nova.toml").write_text(SHOP)


SGR = re.compile(r"\x1b\[([0-9;]*)m")
BASIC = {31: "#ff6b6b", 32: "#7bd88f", 33: "#fce566", 34: "#5aa9e6", 35: "#c792ea", 36: "#5ad4e6"}
CELL, LINE, EDGE = 8.4, 18, 14


def spans(line: str) -> Iterator[tuple[str, str]]:
    """The pieces of a line with the CSS of each."""
    style, position = "", 0
    for match in SGR.finditer(line):
        if match.start() > position:
            yield line[position : match.start()], style
        style = css(match[1], style)
        position = match.end()
    if position < len(line):
        yield line[position:], style


def css(codes: str, before: str) -> str:
    """The style after an SGR sequence (ECMA-48, 8.3.117, and the 256 colours of xterm)."""
    numbers = [int(code or 0) for code in codes.split(";")]
    if numbers == [0]:
        return ""
    if numbers[:2] == [38, 5]:
        return f"{before}fill:{palette(numbers[2])};"
    for number in numbers:
        known = {1: "font-weight:bold;", 2: "opacity:.6;", 7: "text-decoration:underline;"}
        before += f"fill:{BASIC[number]};" if number in BASIC else known.get(number, "")
    return before


def palette(number: int) -> str:
    """A colour of the cube 16..231, or of the greys 232..255."""
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    levels = (0, 95, 135, 175, 215, 255)
    cube = number - 16
    return "#" + "".join(f"{levels[part]:02x}" for part in (cube // 36, cube // 6 % 6, cube % 6))


def svg(command: str, printed: str) -> str:
    """A terminal in which `command` was typed."""
    lines = [f"\x1b[2m$\x1b[0m \x1b[1m{command}\x1b[0m", *printed.rstrip("\n").split("\n")]
    width = round(max(COLUMNS, *(len(SGR.sub("", line)) for line in lines)) * CELL + 2 * EDGE)
    height = len(lines) * LINE + 2 * EDGE
    rows = []
    for number, line in enumerate(lines):
        pieces = "".join(
            f'<tspan style="{style}">{escape(text)}</tspan>' if style else escape(text)
            for text, style in spans(line)
        )
        rows.append(f'<text x="{EDGE}" y="{EDGE + (number + 1) * LINE - 5}">{pieces}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "fill:#e6e6e6;white-space:pre}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e1f29"/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def words(picture: str) -> list[str]:
    """The lines of a picture, the typed one first."""
    return [unescape(re.sub(r"<[^>]*>", "", row)) for row in re.findall(r"<text[^>]*>(.*?)</text>", picture)]


def styles(picture: str) -> set[str]:
    return set(re.findall(r'style="([^"]*)"', picture))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="novad-", dir="/tmp") as top, directory(Path(top)) as project:
        for name, printed in take(project):
            printed = printed.replace(str(project.directory), "/home/ann/shop")
            (FOLDER / f"{name}.svg").write_text(svg(SHOTS[name].command, printed))
            print(FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
