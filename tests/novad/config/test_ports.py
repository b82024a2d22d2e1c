"""Which numbers ports get."""

from __future__ import annotations

import socket
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from novad.config.ports import FIRST, LAST, Clash, Wish, choose, is_free
from tests.novad.config.compiling import compiled, process


def always(number: int) -> bool:
    return True


def test_a_free_port_is_the_same_each_time_and_another_for_another_project() -> None:
    wish = Wish("web", "http", "auto")
    (one,), (again,), (other,) = (choose([wish], {}, seed, always)[0].values() for seed in ("a", "a", "b"))
    assert one == again
    assert one != other
    assert FIRST <= one <= LAST


def test_a_busy_port_is_passed_over() -> None:
    wish = Wish("web", "http", "auto")
    first = choose([wish], {}, "a", always)[0]["web.http"]
    assert choose([wish], {}, "a", lambda number: number != first)[0]["web.http"] != first


def test_a_preferred_port_is_taken_if_it_is_free() -> None:
    wish = Wish("web", "http", "8774?")
    assert choose([wish], {}, "a", always)[0] == {"web.http": 8774}
    assert choose([wish], {}, "a", lambda number: number != 8774)[0]["web.http"] != 8774


def test_a_fixed_port_is_not_asked_whether_it_is_free() -> None:
    assert choose([Wish("web", "http", "8774")], {}, "a", lambda _: False)[0] == {"web.http": 8774}


def test_a_number_given_before_stays_though_its_own_service_holds_it() -> None:
    wishes = [Wish("web", "http", "auto"), Wish("api", "http", "8774?")]
    taken = {"web.http": 21000, "api.http": 22000, "gone.http": 23000}
    assert choose(wishes, taken, "a", lambda _: False)[0] == {"web.http": 21000, "api.http": 22000}


def test_a_number_given_before_yields_to_one_that_is_fixed_now() -> None:
    wishes = [Wish("web", "http", "auto"), Wish("api", "http", "21000")]
    numbers, clashes = choose(wishes, {"web.http": 21000}, "a", always)
    assert numbers["api.http"] == 21000 != numbers["web.http"]
    assert clashes == []


def test_two_that_insist_on_one_number_clash() -> None:
    one, two = Wish("a", "http", "80"), Wish("b", "http", "79+", 2)
    assert choose([one, two], {}, "a", always)[1] == [Clash(two, one)]


def test_when_no_number_is_free_that_is_said() -> None:
    wish = Wish("web", "http", "auto")
    assert choose([wish], {}, "a", lambda _: False) == ({}, [Clash(wish, None)])


texts = st.sampled_from(["auto", "20000?", "20001?", "25000", "25001+", "25002"])
wishes = st.lists(
    st.tuples(st.sampled_from("abcdef"), texts, st.integers(1, 3)), max_size=12, unique_by=lambda w: w[0]
)


@settings(deadline=None)
@given(
    wishes,
    st.dictionaries(st.sampled_from(["a.p", "b.p", "c.p"]), st.integers(20000, 25003)),
    st.sets(st.integers(20000, 20010)),
)
def test_no_number_is_given_twice(
    asked: list[tuple[str, str, int]], taken: dict[str, int], busy: set[int]
) -> None:
    requests = [Wish(name, "p", text, n) for name, text, n in asked]
    numbers, clashes = choose(requests, taken, "seed", lambda number: number not in busy)
    clashing = {clash.wish.key for clash in clashes}
    given_numbers = [number for key, number in numbers.items() if key not in clashing]
    assert len(set(given_numbers)) == len(given_numbers)
    assert {wish.key for wish in requests} == set(numbers)


def test_a_listener_makes_a_port_busy_and_its_end_makes_it_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert not is_free(number)
    assert is_free(number)


def test_a_cluster_keeps_the_ports_of_its_daemon_and_finds_others_where_they_are_busy(tmp_path: Path) -> None:
    text = '[services]\na = "a ${port}"'
    number = process(compiled(tmp_path, text), "a").ports["port"].number
    with socket.create_server(("127.0.0.1", number)):
        assert process(compiled(tmp_path, text), "a").ports["port"].number != number
        kept = compiled(tmp_path, text, taken_ports={"a.port": number})
        assert process(kept, "a").argv == ("a", str(number))


def test_another_namespace_gets_other_ports(tmp_path: Path) -> None:
    text = '[services]\na = "a ${port}"'
    one = process(compiled(tmp_path, text), "a").ports
    two = process(compiled(tmp_path, text, namespace="other"), "a").ports
    assert one != two


def test_scaling_gives_each_replica_a_port(tmp_path: Path) -> None:
    text = '[services]\na = { command = "a ${port.x} ${port.y}", ports = { x = "auto", y = "6080+" } }'
    processes = compiled(tmp_path, text, scale={"a": 3}).processes
    assert [p.name for p in processes] == ["a.1", "a.2", "a.3"]
    assert [p.ports["y"].number for p in processes] == [6080, 6081, 6082]
    assert len({p.ports["x"].number for p in processes}) == 3
