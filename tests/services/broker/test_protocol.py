"""Frames, arguments, tables and content headers: what is built is read back, and what is malformed is refused."""

from __future__ import annotations

import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova.broker import properties, protocol, table

NAMES = st.text(max_size=40).filter(lambda text: len(text.encode()) <= 255)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=50),
    st.binary(max_size=50),
    st.none(),
    st.floats(allow_nan=False),
    st.builds(table.Timestamp, st.integers(0, 2**63)),
    st.integers(-(2**31) + 1, 2**31 - 1).map(lambda n: Decimal(n).scaleb(-3)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


@given(TABLES)
def test_a_table_comes_back_as_it_was(values: dict) -> None:
    data = table.encode(values)
    assert table.decode(b"xy" + data + b"z", 2) == (values, len(data) + 2)


@given(TABLES)
def test_split_and_join_keep_every_byte(values: dict) -> None:
    data = table.encode(values)
    assert table.join(table.split(data)) == data


@given(st.binary(max_size=80))
def test_no_bytes_make_the_table_reader_fail_otherwise(data: bytes) -> None:
    framed = struct.pack(">I", len(data)) + data
    try:
        _, end = table.decode(framed)
    except table.MalformedTable:
        return
    assert end == len(framed)


def test_a_table_nested_too_deep_is_refused() -> None:
    values: dict = {}
    for _ in range(table.MAX_DEPTH):
        values = {"a": values}
    with pytest.raises(table.MalformedTable, match="deeper"):
        table.decode(table.encode(values))


@pytest.mark.parametrize("value", [2**63, object(), Decimal("1e40"), Decimal("nan")])
def test_a_value_without_a_field_type_is_refused(value: object) -> None:
    with pytest.raises(table.MalformedTable):
        table.encode({"key": value})


FRAMES = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 65535), st.binary(max_size=60)), max_size=8)


@given(FRAMES, st.integers(1, 30))
def test_frames_come_out_whole_however_the_stream_is_cut(frames: list, step: int) -> None:
    stream = b"".join(protocol.frame(*each) for each in frames)
    splitter = protocol.FrameSplitter()
    out = []
    for i in range(0, len(stream), step):
        out += splitter.feed(stream[i : i + step])
    assert out == frames
    assert splitter.pending == 0


def test_a_frame_over_the_agreed_size_is_refused_before_it_has_arrived() -> None:
    splitter = protocol.FrameSplitter(frame_max=4096)
    assert splitter.feed(protocol.frame(3, 1, bytes(4096 - 8)))
    with pytest.raises(protocol.MalformedFrame, match="frame_too_large,4089,4088"):
        splitter.feed(protocol.FRAME_HEAD.pack(3, 1, 4096 - 7) + b"x")


def test_a_wrong_end_octet_is_refused() -> None:
    with pytest.raises(protocol.MalformedFrame, match="invalid_frame_end_marker,0"):
        protocol.FrameSplitter().feed(protocol.frame(1, 1, b"abcd")[:-1] + b"\x00")


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 9000])
def test_a_message_is_cut_into_frames_of_at_most_the_agreed_size(size: int) -> None:
    body = bytes(size)
    data = protocol.content(3, b"\0\x3c\0\x28rest", b"header", body, 4096)
    frames = protocol.FrameSplitter(4096).feed(data)
    assert [kind for kind, _, _ in frames[:2]] == [protocol.METHOD, protocol.HEADER]
    assert {channel for _, channel, _ in frames} == {3}
    assert b"".join(payload for kind, _, payload in frames if kind == protocol.BODY) == body


def test_a_method_frame_carries_its_number_and_arguments() -> None:
    data = protocol.method(7, protocol.BASIC_ACK, protocol.U64.pack(9) + b"\1")
    ((kind, channel, payload),) = protocol.FrameSplitter().feed(data)
    assert (kind, channel) == (protocol.METHOD, 7)
    assert protocol.U32.unpack_from(payload)[0] == protocol.BASIC_ACK
    arguments = protocol.Arguments(payload)
    assert (arguments.longlong(), arguments.octet(), arguments.is_at_end()) == (9, 1, True)


READERS = ("octet", "short", "long", "longlong", "shortstr", "longstr", "table")


@given(st.binary(max_size=30), st.lists(st.sampled_from(READERS), max_size=10))
def test_arguments_that_end_early_are_refused(payload: bytes, readers: list) -> None:
    arguments = protocol.Arguments(payload, 0)
    try:
        for name in readers:
            getattr(arguments, name)()
    except protocol.MalformedArguments:
        return
    assert arguments._position <= len(payload)


PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        name: {
            "text": NAMES,
            "octet": st.integers(0, 255),
            "time": st.integers(0, 2**63).map(table.Timestamp),
            "table": TABLES,
        }[kind]
        for name, (_, kind) in properties.FIELDS.items()
    },
)


@given(PROPERTIES, st.integers(0, 2**40))
def test_properties_come_back_as_they_were(values: dict, size: int) -> None:
    header = properties.encode(size, values)
    assert properties.body_size(header) == size
    assert properties.decode(header) == values
    assert all(properties.read(header, name) == values.get(name) for name in properties.FIELDS)


@given(PROPERTIES)
def test_a_property_is_replaced_without_a_change_to_the_others(values: dict) -> None:
    header = properties.encode(5, values)
    changed = properties.replace(header, {"reply_to": protocol.shortstr("there"), "expiration": None})
    expected = {name: value for name, value in values.items() if name != "expiration"} | {"reply_to": "there"}
    assert properties.decode(changed) == expected
    assert properties.replace(header, {}) == header


@given(st.binary(max_size=60))
def test_no_bytes_make_the_header_reader_fail_otherwise(data: bytes) -> None:
    try:
        properties.decode(data)
    except properties.MalformedHeader:
        pass


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(ValueError, match="no such property: colour"):
        properties.encode(0, {"colour": "red"})
