"""A run as JUnit XML: a suite `novad` with a case for each service and phase, and one for the command. Pure."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from novad.testing.story import Story

# What XML 1.0 cannot hold (https://www.w3.org/TR/xml/#charsets).
ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(story: Story, tails: Mapping[str, str]) -> str:
    """The document. `tails` are the last lines of each service's log."""
    suite = ElementTree.Element("testsuite", name="novad", time=f"{story.took_s:.3f}")
    started = {spec.name for spec in story.cluster.processes if spec.name in {row["name"] for row in story.rows}}
    ready_s = {row["name"]: row.get("ready_in_s") for row in story.rows}
    for name in sorted(started):
        began = case(suite, "start", name, ready_s.get(name))
        if name in story.unready:
            failure(began, "did not get ready", story.unready[name])
        elif name in story.slower:
            failure(began, "slower start", story.slower[name])
        ran = case(suite, "run", name)
        crash = story.last_crash(name)
        if crash is not None and story.are_crashes_forgiven:
            ElementTree.SubElement(ran, "system-err").text = legal(crash.why)
        elif crash is not None:
            failure(ran, f"{crash.how}: {crash.message}", crash.why)
        if tails.get(name):
            ElementTree.SubElement(ran, "system-out").text = legal(tails[name])
    command(suite, story)
    ended = case(suite, "stop", "everything is gone")
    if story.survivors or story.leaks:
        failure(ended, "something was left", "\n".join([*story.survivors, *story.leaks]))
    failures = len(suite.findall("testcase/failure"))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def command(suite: ElementTree.Element, story: Story) -> None:
    took_s = None if story.command_at is None else story.ended_at - story.command_at
    ran = case(suite, "command", " ".join(story.command), took_s)
    if story.command_code is None:
        ElementTree.SubElement(ran, "skipped" if story.command_at is None else "failure", message=story.verdict)
    elif story.command_code:
        failure(ran, f"exit {story.command_code}", story.verdict)


def case(suite: ElementTree.Element, phase: str, name: str, seconds: float | None = None) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=f"novad.{phase}", name=legal(name), time=f"{seconds or 0.0:.3f}"
    )


def failure(at: ElementTree.Element, message: str, text: str) -> None:
    ElementTree.SubElement(at, "failure", message=legal(message)).text = legal(text)


def legal(text: str) -> str:
    return ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
