"""Reading a Query request: names with dots, ids, filters and pages. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova.api import filters, ids, query
from nova.api.errors import Ec2Error
from nova.api.query import Params


def code(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Ec2Error) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_lists_and_structures_come_in_the_order_of_their_numbers() -> None:
    params = query.parse("", b"Id.10=c&Id.2=b&Id.1=a&F.2.Name=y&F.1.Name=x&F.1.Value.1=1&F.1.Value.2=2")
    assert params.texts("Id") == ["a", "b", "c"]
    assert [part.required("Name") for part in params.structures("F")] == ["x", "y"]
    assert params.structures("F")[0].texts("Value") == ["1", "2"]
    assert params.structures("Absent") == []


def test_a_missing_parameter_is_called_by_its_full_name() -> None:
    part = query.parse("", b"Filter.3.Value.1=x").structures("Filter")[0]
    with pytest.raises(Ec2Error, match=r"Filter\.3\.Name"):
        part.required("Name")


@pytest.mark.parametrize(
    ("text", "fits"), [("1", True), ("5", True), ("0", False), ("6", False), ("x", False), ("", False)]
)
def test_a_number_is_a_number_between_its_limits(text: str, fits: bool) -> None:
    params = Params({"N": text})
    if fits:
        assert params.number("N", 3, 1, 5) == int(text)
    else:
        assert code(params.number, "N", 3, 1, 5) == "InvalidParameterValue"
    assert params.number("Absent", 3, 1, 5) == 3


def test_flags_and_base64_are_checked() -> None:
    params = Params({"T": "True", "F": "0", "X": "yes", "B": "aGVsbG8=", "C": "?"})
    assert (params.flag("T"), params.flag("F"), params.flag("Absent")) == (True, False, False)
    assert code(params.flag, "X") == "InvalidParameterValue"
    assert params.encoded("B", 5) == "aGVsbG8="
    assert code(params.encoded, "B", 4) == "InvalidParameterValue"
    assert code(params.encoded, "C", 9) == "InvalidParameterValue"


@pytest.mark.parametrize("body", [b"A=%ff", b"\xff=1", b"&".join(b"A.%d=1" % number for number in range(6000))])
def test_what_is_no_form_is_malformed(body: bytes) -> None:
    assert code(query.parse, "", body) == "MalformedQueryString"


@given(st.binary(max_size=60))
def test_garbage_is_read_or_refused(body: bytes) -> None:
    try:
        params = query.parse("", body)
        params.structures("A")
        params.texts("A")
    except Ec2Error:
        pass


@given(st.integers(1, 2**31 - 1))
def test_an_id_is_its_number(number: int) -> None:
    assert ids.parse("i", ids.of("i", number)) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i-xyz", "InvalidInstanceID.Malformed"),
        ("vol-00000001", "InvalidInstanceID.Malformed"),
        ("i-00000000", "InvalidInstanceID.NotFound"),
        ("i-ffffffff", "InvalidInstanceID.NotFound"),
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("i-00000001\n", "InvalidInstanceID.Malformed"),
    ],
)
def test_an_id_that_is_none_and_one_that_cannot_exist_are_told_apart(text: str, expected: str) -> None:
    assert code(ids.parse, "i", text) == expected


VIEWS: list[dict[str, Any]] = [
    {"id": "a*c", "n": 1, "on": True, "tagSet": {"item": [{"key": "k", "value": "v"}]}},
    {"id": "abc", "n": 2, "on": False, "set": {"item": [{"x": "1"}, {"x": "2"}]}},
]
READERS = {
    "id": filters.field("id"),
    "n": filters.field("n"),
    "on": filters.field("on"),
    "x": filters.field("set", "item", "x"),
}


def matching(text: str) -> list[str]:
    return [view["id"] for view in filters.apply(query.parse(text, b""), VIEWS, READERS, lambda view: view)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["a*c", "abc"]),
        ("Filter.1.Name=id&Filter.1.Value.1=a*c", ["a*c", "abc"]),
        ("Filter.1.Name=id&Filter.1.Value.1=a%5C*c", ["a*c"]),
        ("Filter.1.Name=id&Filter.1.Value.1=a?c&Filter.2.Name=n&Filter.2.Value.1=2", ["abc"]),
        ("Filter.1.Name=n&Filter.1.Value.1=1&Filter.1.Value.2=2", ["a*c", "abc"]),
        ("Filter.1.Name=on&Filter.1.Value.1=true", ["a*c"]),
        ("Filter.1.Name=x&Filter.1.Value.1=2", ["abc"]),
        ("Filter.1.Name=tag:k&Filter.1.Value.1=v", ["a*c"]),
        ("Filter.1.Name=tag:k&Filter.1.Value.1=w", []),
        ("Filter.1.Name=tag-key&Filter.1.Value.1=k", ["a*c"]),
        ("Filter.1.Name=id", []),
    ],
)
def test_filters_are_joined_by_and_their_values_by_or(text: str, found: list[str]) -> None:
    assert matching(text) == found


def test_a_filter_that_is_not_known_is_refused_rather_than_ignored() -> None:
    assert code(matching, "Filter.1.Name=colour&Filter.1.Value.1=red") == "InvalidParameterValue"


@given(st.sets(st.integers(1, 200), max_size=60), st.integers(5, 20))
def test_pages_together_are_everything_once(numbers: set[int], size: int) -> None:
    items, seen, token = sorted(numbers), [], None
    while True:
        values = {"MaxResults": str(size), **({"NextToken": token} if token else {})}
        shown, token = filters.page(Params(values), items, lambda item: item, has_ids=False)
        assert len(shown) <= size
        seen += shown
        if token is None:
            break
    assert seen == items


def test_pages_do_not_go_with_ids_or_with_tokens_of_others() -> None:
    assert code(filters.page, Params({"MaxResults": "5"}), [], int, True) == "InvalidParameterCombination"
    assert code(filters.page, Params({"NextToken": "?"}), [], int, False) == "InvalidParameterValue"
    assert code(filters.page, Params({"MaxResults": "4"}), [], int, False) == "InvalidParameterValue"
