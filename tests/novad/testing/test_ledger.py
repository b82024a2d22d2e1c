"""The start-up ledger: what counts as slower, and a run that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novad.core.errors import UsageError
from novad.testing.ledger import Entry, add, read, regressions, share
from tests.novad.testing.running import Site


def entry(commit: str, profile: str = "ci", **ready_s: float) -> Entry:
    return Entry(commit, 0.0, profile, ready_s)


PAST = [
    entry("a", api=1.0),
    entry("b", api=1.2),
    entry("b", api=9.0),
    entry("c", "other", api=0.1),
    entry("now", api=0.1),
]


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (entry("now", api=1.5), []),
        (entry("now", api=1.6), ["api"]),
        (entry("now", api=1.6, web=99.0), ["api"]),
        (entry("now", "new", api=99.0), []),
    ],
    ids=["within", "over", "a service without a past", "a profile without a past"],
)
def test_slower_is_against_the_median_of_other_commits(now: Entry, names: list[str]) -> None:
    assert [found.name for found in regressions(PAST, now, 0.3)] == names


def test_a_tenth_of_a_second_is_the_machines_mood() -> None:
    assert regressions([entry("a", api=0.01)], entry("b", api=0.1), 0.3) == []


@pytest.mark.parametrize("text", ["", "x", "-1%", "nan"])
def test_a_share_is_a_percentage(text: str) -> None:
    assert share("30%") == pytest.approx(0.3)
    with pytest.raises(UsageError):
        share(text)


def test_what_was_written_is_read_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    add(str(tmp_path), PAST, entry("d", api=2.0))
    with (tmp_path / "ready.jsonl").open("a") as file:
        file.write('{"commit": "e", "at"')
    assert read(str(tmp_path)) == [*PAST, entry("d", api=2.0)]


def test_a_run_whose_service_got_slower_fails_and_names_it(site: Site) -> None:
    site.write('[services.web]\ncommand = "sleep 1000"\nready_after = "300ms"\n')
    words = ("--max-ready-regression", "30%", "--", "true")
    assert site.run(*words)[0] == 0
    (line,) = (site.folder / ".novad" / "ready.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert written["ready_s"]["web"] >= 0.3
    faster = {**written, "commit": "of another one", "ready_s": {"web": 0.05}}
    (site.folder / ".novad" / "ready.jsonl").write_text(json.dumps(faster) + "\n")
    code, _, err = site.run(*words)
    assert code == 1
    assert "slower start: web: ready after 0.3" in err
