"""Writes the reports of a run: to the CI system that runs it, and to the files that the user asked for."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from novad.client.logfile import last_lines
from novad.client.render.words import plural
from novad.testing import hosted
from novad.testing.junit import junit
from novad.testing.page import page
from novad.testing.story import Story

TAIL_LINES = 500
FOLDED_LINES = 200


def write(story: Story, environ: dict[str, str], directory: str | None, junit_file: str | None) -> None:
    """Everything that was asked for. Raises `OSError` where a file cannot be written."""
    tails = {spec.name: tail(spec.log.path, TAIL_LINES) for spec in story.cluster.processes}
    if junit_file:
        Path(junit_file).parent.mkdir(parents=True, exist_ok=True)
        Path(junit_file).write_text(junit(story, tails))
    if directory:
        write_directory(story, Path(directory), tails)
    tell_system(story, environ, tails)


def tail(path: str, count: int) -> str:
    lines = last_lines(path, count) if os.path.exists(path) else []
    return b"".join(line + b"\n" for line in (line.rstrip(b"\n") for line in lines)).decode("utf-8", "replace")


def write_directory(story: Story, directory: Path, tails: dict[str, str]) -> None:
    """The page, the logs, the journal and the status."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "index.html").write_text(page(story, tails))
    for spec in story.cluster.processes:
        if os.path.exists(spec.log.path):
            shutil.copy(spec.log.path, directory)
    for name, kept in ((f"journal-{story.cluster.namespace}.jsonl", "events.jsonl"), ("novad.log", "novad.log")):
        source = Path(story.cluster.state_dir, name)
        if source.exists():
            shutil.copy(source, directory / kept)
    document = {
        "schema": 1, "code": story.code, "verdict": story.verdict, "took_s": round(story.took_s, 3),
        "command": list(story.command), "command_code": story.command_code, "processes": story.rows,
        "crashes": [asdict(crash) for crash in story.crashes], "survivors": story.survivors, "leaks": story.leaks,
        "slower": list(story.slower.values()),
    }  # fmt: skip
    (directory / "status.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def tell_system(story: Story, environ: dict[str, str], tails: dict[str, str]) -> None:
    """Annotations and groups on stdout, the summary in its file; nothing where no CI system is known."""
    system = hosted.kind(environ)
    if not system:
        return
    lines: list[str] = []
    if system == "github":
        root = environ.get("GITHUB_WORKSPACE") or story.cluster.dir
        prefix = os.path.relpath(story.cluster.dir, root)
        lines += hosted.errors(story, "" if prefix == "." else prefix)
    failed = {*story.crashed(), *story.unready}
    for name, text in tails.items():
        if name not in failed and text:
            shown = text.splitlines()[-FOLDED_LINES:]
            lines += hosted.group(
                system, f"log of {name} ({plural(len(shown), 'line')})", shown, int(time.time())
            )
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    if summary_file := environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary_file, "a") as file:
            file.write(hosted.summary(story))
