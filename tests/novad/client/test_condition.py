"""The conditions of `wait`: reading, judging, and saying what is missing."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novad.client.condition import Condition, Facts, Line, Verdict, atoms, is_condition, judge, parse, unmet
from novad.core.errors import UsageError

# A loaded machine is no fault.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = {"": ("db", "web.1", "web.2"), "db": ("db",), "web": ("web.1", "web.2"), "web.1": ("web.1",)}


def facts(
    db: str = "ready", web1: str = "ready", web2: str = "ready", *, flapping: str = "", seen: str = ""
) -> Facts:
    lines = frozenset(atom for atom in (atoms(parse(seen)) if seen else []) if isinstance(atom, Line))
    states = {"db": db, "web.1": web1, "web.2": web2}
    return Facts(states, frozenset(flapping.split()), lines, NAMES)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("db.ready", "db.ready"),
        ("web.1.ready", "web.1.ready"),
        ("a.ready && b.ready || c.ready", "((a.ready && b.ready) || c.ready)"),
        ("a.ready && (b.ready || c.ready)", "(a.ready && (b.ready || c.ready))"),
        ("!flapping&&!a.failed", "(!flapping && !a.failed)"),
        ("!(a.ready && b.ready)", "!(a.ready && b.ready)"),
        ("'db-*'.ready".replace("'", ""), "db-*.ready"),
        (r"w.log ~ /a\/b \d+/", r"w.log ~ /a/b \d+/"),
        ('w.log~"1+1"', r"w.log ~ /1\+1/"),
        ("w.log ~ /x && y/ && db.ready", "(w.log ~ /x && y/ && db.ready)"),
    ],
)
def test_a_condition_is_read_with_and_before_or_and_not_before_both(text: str, shape: str) -> None:
    assert str(parse(text)) == shape


def test_a_pattern_can_ignore_case() -> None:
    line = parse("w.log ~ /Consuming/i")
    assert isinstance(line, Line)
    assert line.pattern.flags & re.IGNORECASE


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("db.redy", "`redy` is no state; did you mean `ready`?", 0),
        ("db.ready &&", "expected SVC.ready", 11),
        ("(db.ready", "a ) is missing", 9),
        ("db.ready web.ready", "expected && or ||", 9),
        ("db.log /x/", "expected ~", 7),
        ("db.log ~ x", "expected /regular expression/", 9),
        ("db.log ~ /(/", "not a regular expression", 9),
        ("db.ready & web.ready", "no word of a condition", 9),
        ("", "expected SVC.ready", 0),
        ("db.quux", "one of ready done", 0),
    ],
)
def test_a_mistake_is_pointed_at(text: str, message: str, column: int) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    told, shown, caret = caught.value.message.split("\n")
    assert message in told
    assert shown == f"  {text}"
    assert caret == "  " + " " * column + "^"


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        (("db.ready",), True),
        (("db.ready", "&&", "web.ready"), True),
        (("!flapping",), True),
        (("flapping",), True),
        (("(db.ready)",), True),
        (("w.log", "~", "/x/"), True),
        (("db", "web"), False),
        (("web.2",), False),
        (("we[!b]*",), False),
        ((), False),
    ],
)
def test_names_are_not_taken_for_a_condition(words: tuple[str, ...], is_one: bool) -> None:
    assert is_condition(words) is is_one


JUDGED: list[tuple[str, Facts, Verdict]] = [
    ("ready", facts(), Verdict.HOLDS),
    ("web.ready", facts(web2="starting"), Verdict.OPEN),
    ("web.1.ready", facts(web2="starting"), Verdict.HOLDS),
    ("web.ready", facts(web2="done"), Verdict.HOLDS),
    ("web.ready", facts(web2="failed"), Verdict.HOPELESS),
    ("web.ready && db.ready", facts(web2="failed", db="starting"), Verdict.HOPELESS),
    ("web.ready || db.ready", facts(web2="failed", db="starting"), Verdict.OPEN),
    ("web.ready || db.ready", facts(web2="failed", db="stopped"), Verdict.HOPELESS),
    ("web.failed", facts(web2="failed"), Verdict.HOLDS),
    ("!web.failed", facts(web2="failed"), Verdict.OPEN),
    ("web.stopped", facts(web2="failed"), Verdict.OPEN),
    ("web.stopped", facts(web1="stopped", web2="failed"), Verdict.HOLDS),
    ("!flapping", facts(), Verdict.HOLDS),
    ("!flapping", facts(flapping="db"), Verdict.OPEN),
    ("!web.flapping", facts(flapping="db"), Verdict.HOLDS),
    ("db.log ~ /x/", facts(), Verdict.OPEN),
    ("db.log ~ /x/", facts(seen="db.log ~ /x/"), Verdict.HOLDS),
    ("db.log ~ /x/", facts(db="failed"), Verdict.HOPELESS),
    ("db.log ~ /x/", facts(db="backoff"), Verdict.OPEN),
]


@pytest.mark.parametrize(("text", "known", "verdict"), JUDGED)
def test_a_condition_is_judged_by_what_is_known(text: str, known: Facts, verdict: Verdict) -> None:
    assert judge(parse(text), known) is verdict


def test_what_is_missing_is_told_part_by_part() -> None:
    known = facts(db="starting", web2="backoff", flapping="web.2")
    assert unmet(parse("db.ready && web.1.ready && !flapping && db.log ~ /x/"), known) == [
        ("db.ready", "db starting"),
        ("!flapping", "db starting, web.1 ready, web.2 backoff (flapping)"),
        ("db.log ~ /x/", "no such line yet; db starting"),
    ]
    assert unmet(parse("db.ready || web.1.ready"), known) == []


CONDITIONS = st.recursive(
    st.sampled_from(["db.ready", "web.failed", "flapping", "web.1.done", "db.log ~ /x/"]),
    lambda inner: st.one_of(
        inner.map(lambda text: f"!({text})"),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda three: "({} {} {})".format(*three)),
    ),
    max_leaves=12,
)


@RELAXED
@given(CONDITIONS, st.lists(st.sampled_from(["ready", "failed", "starting", "done"]), min_size=3, max_size=3))
def test_what_is_printed_reads_as_the_same_condition_and_what_holds_misses_nothing(
    text: str, states: list[str]
) -> None:
    condition: Condition = parse(text)
    known = facts(*states)
    assert judge(parse(str(condition)), known) is judge(condition, known)
    assert (unmet(condition, known) == []) is (judge(condition, known) is Verdict.HOLDS)


@RELAXED
@given(st.text(alphabet='ab.()!&|~/"* \\[log', max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert str(parse(text))
