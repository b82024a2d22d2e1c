"""How a fault looks."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from novad.client.render.paint import visible_length
from novad.config.report import ConfigFaults, Fault, render
from novad.config.source import Source, Span
from tests.novad.goldens import SHAPE, golden, shape

SOURCE = Source("/p/nova.toml", "nova.toml", 'a = 1\n[services.api]\ndepend_on = ["broker"]\n')
FAULT = Fault("unknown key `depend_on`", SOURCE, Span(21, 30), ("did you mean `after`?",))


def test_a_fault_shows_its_line_and_points_at_its_columns() -> None:
    assert render([FAULT]) == (
        "error: unknown key `depend_on`\n"
        " --> nova.toml:3:1\n"
        "  |\n"
        '3 | depend_on = ["broker"]\n'
        "  | ^^^^^^^^^\n"
        "  = help: did you mean `after`?\n"
        "1 error in nova.toml; nothing was started"
    )


@SHAPE
def test_a_long_line_is_quoted_within_the_width_of_the_terminal(width: int, colour: bool) -> None:
    line = (
        f'command = "nova-api {" ".join(f"--option-{n} value" for n in range(9))} --port ${{prt.http}} --verbose"'
    )
    local = Source("/p/nova.local.toml", "nova.local.toml", f"[services.api]\n{line}\n")
    at = local.text.index("${prt")
    faults = [FAULT, Fault("unknown name `prt.http`", local, Span(at, at + 11), ("did you mean `port.http`?",))]
    lines = render(faults, color=colour, width=width).split("\n")
    assert all(visible_length(text) <= width for text in lines)
    golden(f"config-errors-{shape(width, colour)}", lines)


def test_colour_changes_nothing_but_colour() -> None:
    colored = render([FAULT], color=True)
    assert "\x1b[1;31merror\x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render([FAULT])


def test_the_short_form_is_a_line_that_editors_understand() -> None:
    other = Fault("there is no profile `x`")
    assert render([FAULT, other], short=True) == (
        "nova.toml:3:1: error: unknown key `depend_on` (did you mean `after`?)\nerror: there is no profile `x`"
    )


def test_the_summary_counts_errors_and_files() -> None:
    other = Fault("wrong", Source("/p/b.toml", "b.toml", "x"), Span(0, 1))
    assert render([FAULT, FAULT]).endswith("2 errors in nova.toml; nothing was started")
    assert render([FAULT, other]).endswith("2 errors in 2 files; nothing was started")
    assert render([Fault("x")]).endswith("1 error; nothing was started")


def test_the_error_ends_with_78_and_holds_all_faults() -> None:
    error = ConfigFaults([FAULT, FAULT])
    assert error.exit_code == 78
    assert error.faults == (FAULT, FAULT)
    assert str(error) == error.render()


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    source = Source("x", "x", "a = \x1b[31m\x07\x00\x85 b")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", render([Fault("bad", source, Span(4, 6))]))


@given(st.text(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_any_span_of_any_text_can_be_shown_and_the_carets_stay_below_it(
    text: str, start: int, length: int
) -> None:
    source = Source("x", "x", text.replace("\r\n", "\n"))
    start = min(start, len(source.text))
    report = render([Fault("bad", source, Span(start, min(start + length, len(source.text))))])
    lines = report.split("\n")
    assert lines[-2].lstrip(" 0123456789").startswith("|")
    assert "^" in lines[-2]


def test_offsets_become_lines_and_columns() -> None:
    source = Source("x", "x", "ab\n\ncd")
    assert [source.locate(offset) for offset in range(7)] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (3, 1),
        (3, 2),
        (3, 3),
    ]
    assert [source.line(number) for number in (1, 2, 3)] == ["ab", "", "cd"]
