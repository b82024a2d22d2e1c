from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novad.client import logfile


def stamped(second: int, text: str, stream: str = "o") -> str:
    return f"2026-11-23T17:{second // 60:02d}:{second % 60:02d}.000000Z {stream} {text}\n"


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(lines))
    return str(path)


def texts(lines: object) -> list[str]:
    return [line[logfile.TEXT :].decode() for line in lines]  # type: ignore[attr-defined]


def test_rotated_files_come_before_the_newest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", stamped(3, "three"))
    write(tmp_path / "a.log.1", stamped(2, "two"))
    write(tmp_path / "a.log.2", stamped(1, "one"))
    assert texts(logfile.lines(logfile.stored(path))) == ["one", "two", "three"]


def test_the_last_lines_reach_into_rotated_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", stamped(3, "three"), stamped(4, "four"))
    write(tmp_path / "a.log.1", stamped(1, "one"), stamped(2, "two"))
    assert texts(logfile.last_lines(path, 3)) == ["two", "three", "four"]
    assert texts(logfile.last_lines(path, 0)) == []


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", stamped(1, "whole"), "2026-11-23T17:00:02.000000Z o ha")
    assert texts(logfile.last_lines(path, 5)) == ["whole"]
    assert texts(logfile.lines(logfile.stored(path))) == ["whole"]


def test_a_follower_takes_over_exactly_at_its_offset(tmp_path: Path) -> None:
    first = stamped(1, "old")
    path = write(tmp_path / "a.log", first, stamped(2, "pushed"))
    assert texts(logfile.lines(logfile.stored(path, len(first)))) == ["old"]


def test_a_file_that_was_rotated_after_the_offset_was_told_loses_nothing(tmp_path: Path) -> None:
    first = stamped(1, "old")
    write(tmp_path / "a.log.1", first, stamped(2, "pushed"))
    path = write(tmp_path / "a.log", "")
    assert texts(logfile.lines(logfile.stored(path, len(first)))) == ["old"]


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert list(logfile.lines(logfile.stored(str(tmp_path / "none.log")))) == []
    assert logfile.last_lines(str(tmp_path / "none.log"), 5) == []


@given(seconds=st.lists(st.integers(0, 3000), max_size=60), bound=st.integers(0, 3001), low=st.integers(0, 70))
def test_bisection_finds_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], bound: int, low: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    lines = [stamped(second, "x" * (second % 97) * 60) for second in sorted(seconds)]
    span = logfile.Span(write(path, *lines), 0, len("".join(lines)))
    stamp = stamped(bound, "")[: logfile.STAMP].encode()
    expected = len("".join(line for line in lines if line[: logfile.STAMP].encode() < stamp))
    assert logfile.offset_of(span, stamp) == expected


def test_one_run_is_what_lies_between_two_starts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.log",
        stamped(1, "started, pid 1", "n"), stamped(2, "first"), stamped(3, "exit 1 after 1.0 s", "n"),
        stamped(4, "started, pid 2", "n"), stamped(5, "Z n started, says the child"), stamped(6, "second"),
    )  # fmt: skip
    spans = logfile.stored(path)
    assert texts(logfile.lines(logfile.of_run(spans, -1)))[1] == "first"
    assert texts(logfile.lines(logfile.of_run(spans, 0)))[-1] == "second"
    assert len(texts(logfile.lines(logfile.of_run(spans, 0)))) == 3
    assert logfile.of_run(spans, -2) == []


def test_a_run_that_was_rotated_is_read_from_both_files(tmp_path: Path) -> None:
    write(tmp_path / "a.log.1", stamped(1, "started, pid 1", "n"), stamped(2, "one"))
    path = write(tmp_path / "a.log", stamped(3, "two"), stamped(4, "started, pid 2", "n"))
    assert texts(logfile.lines(logfile.of_run(logfile.stored(path), -1)))[1:] == ["one", "two"]


def test_blocks_cut_at_lines_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [stamped(number, "y" * number) for number in range(60)]
    path = write(tmp_path / "a.log", *lines)
    monkeypatch.setattr(logfile, "BLOCK", 100)
    monkeypatch.setattr(logfile, "TAIL_BLOCK", 7)
    assert texts(logfile.lines(logfile.stored(path))) == ["y" * number for number in range(60)]
    assert texts(logfile.last_lines(path, 7)) == ["y" * number for number in range(53, 60)]
