"""The journal: what it says after a crash, and that it never holds the hub."""

from __future__ import annotations

import time

import pytest
from nova import green
from nova.rpc.journal import KEEP_S, PRUNE_EVERY_S, Journal, JournalBroken, Row


def row(name: str) -> Row:
    return Row(name, "host", b"body", "correlation", "reply-to")


@pytest.fixture
def journal(tmp_path):
    journal = Journal(str(tmp_path / "deep" / "compute.h1.journal"))
    assert journal.open() == []
    yield journal
    journal.close()


def test_a_call_begins_once_and_its_reply_is_there_for_the_second(journal) -> None:
    assert journal.begin(row("a")) is None
    assert journal.begin(row("a")).reply is None
    journal.finish("a", b"reply")
    assert journal.begin(row("a")).reply == b"reply"


def test_a_journal_opened_after_a_crash_lists_what_had_begun_and_what_was_not_replied(journal) -> None:
    for name in "abc":
        journal.begin(row(name))
    journal.begin_again("a")
    journal.finish("b", b"reply")
    journal.finish("c", b"reply")
    journal.replied("c")
    journal.begin(row("flush"))
    found = {found.unique_id: (found.attempts, found.reply) for found in Journal(journal.path).open()}
    assert found == {"a": (2, None), "b": (1, b"reply"), "flush": (1, None)}


def test_many_calls_share_a_commit(journal) -> None:
    commits = []
    commit = journal._commit
    journal._commit = lambda operations: commits.append(len(operations)) or commit(operations)
    begun = [green.spawn(journal.begin, row(str(n))) for n in range(300)]
    assert [one.wait() for one in begun] == [None] * 300
    assert sum(commits) == 300
    assert len(commits) < 30


def test_the_hub_goes_on_while_the_journal_writes(journal) -> None:
    commit = journal._commit

    def slow(operations):
        green.original("time").sleep(0.3)
        return commit(operations)

    journal._commit = slow
    beginning = green.spawn(journal.begin, row("a"))
    gaps, last_s = [], time.monotonic()
    while not beginning.dead:
        green.sleep(0.005)
        gaps.append(time.monotonic() - last_s)
        last_s = time.monotonic()
    assert len(gaps) > 10
    assert max(gaps) < 0.2


def test_answered_calls_are_forgotten_after_a_day_and_unanswered_ones_never(tmp_path) -> None:
    now = [1000.0]
    journal = Journal(str(tmp_path / "j"), clock=lambda: now[0])
    journal.open()
    for name in ("answered", "open"):
        journal.begin(row(name))
    journal.finish("answered", b"r")
    journal.replied("answered")
    now[0] += KEEP_S + PRUNE_EVERY_S
    journal.begin(row("next"))
    assert journal.begin(row("answered")) is None
    assert journal.begin(row("open")) is not None
    journal.close()


def test_a_journal_that_cannot_be_written_is_an_error_of_the_call_and_not_a_hang(journal) -> None:
    def fail(operations):
        raise OSError("disk full")

    working, journal._commit = journal._commit, fail
    with pytest.raises(JournalBroken, match="disk full"):
        journal.begin(row("a"))
    journal._commit = working
    assert journal.begin(row("a")) is None


def test_a_file_that_is_no_database_is_reported(tmp_path) -> None:
    (tmp_path / "j").write_bytes(b"no database at all" * 100)
    with pytest.raises(JournalBroken, match="not a database"):
        Journal(str(tmp_path / "j")).open()
