"""What CI systems want to be told in their own words: annotations, folded groups, a summary. Pure.

GitHub: workflow commands (https://docs.github.com/actions/reference/workflow-commands-for-github-actions). GitLab:
section markers (https://docs.gitlab.com/ci/jobs/job_logs/). Whatever failed is never folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from novad.client.render.words import duration
from novad.testing.story import Crash, Story

FENCE = "`````"


def kind(environ: Mapping[str, str]) -> str:
    """`github`, `gitlab` or nothing."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return "github"
    return "gitlab" if environ.get("GITLAB_CI") == "true" else ""


def errors(story: Story, prefix: str) -> list[str]:
    """One `::error` a crashed service, `::warning` where crashes are forgiven.

    `prefix` leads from the repository's root to the project.
    """
    last = {crash.name: crash for crash in (*story.start_crashes, *story.crashes)}
    level = "warning" if story.are_crashes_forgiven and story.code == 0 else "error"
    return [annotation(crash, prefix, level) for crash in last.values()]


def annotation(crash: Crash, prefix: str, level: str = "error") -> str:
    properties = {"title": f"{crash.name}: {crash.how}"}
    if crash.place is not None:
        file = f"{prefix}/{crash.place.file}" if prefix else crash.place.file
        properties = {"file": file, "line": str(crash.place.line), **properties}
    listed = ",".join(f"{key}={escaped(value, is_property=True)}" for key, value in properties.items())
    return f"::{level} {listed}::{escaped(crash.message)}"


def escaped(text: str, is_property: bool = False) -> str:
    for letter, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(letter, code)
    return text.replace(":", "%3A").replace(",", "%2C") if is_property else text


def group(system: str, title: str, lines: list[str], now_s: int) -> list[str]:
    """`lines` folded under `title`, where the system can fold."""
    # A line of a service must not be taken for a command of the CI system.
    safe = [re.sub(r"^(\s*)::", r"\1: :", line) for line in lines]
    if system == "github":
        return [f"::group::{escaped(title)}", *safe, "::endgroup::"]
    if system == "gitlab":
        name = re.sub(r"\W+", "_", title).strip("_").lower()
        start = f"\033[0Ksection_start:{now_s}:{name}[collapsed=true]\r\033[0K{title}"
        return [start, *safe, f"\033[0Ksection_end:{now_s}:{name}\r\033[0K"]
    return []


def details(title: str, text: str) -> list[str]:
    return ["", f"<details open><summary>{title}</summary>", "", f"{FENCE}text", text, FENCE, "</details>"]


def summary(story: Story) -> str:
    """Markdown for the summary of the step."""
    sign = "✅" if story.code == 0 else "❌"
    lines = [f"### {sign} novad run: {story.verdict}", ""]
    lines += ["| service | state | ready in | restarts |", "|---|---|---|---|"]
    for row in story.rows:
        state = "crashed" if row["name"] in story.crashed() else row["state"]
        lines.append(f"| {row['name']} | {state} | {duration(row.get('ready_in_s'))} | {row['restarts']} |")
    for name in story.crashed():
        crash = story.last_crash(name)
        assert crash is not None
        lines += details(f"{name}: {crash.how}", crash.why)
    for name, text in story.unready.items():
        lines += details(f"{name} did not get ready", text)
    return "\n".join(lines) + "\n"
