"""Which host a scheduler chooses, and what it says where there is none. Pure."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova.scheduler.driver import CHOICES, Host, Life, NoValidHost, Wish, chance, choose, simple

WISH = Wish(amount=1, limit=16, unit="vcpus")


def host(name: str, used: int = 0, count: int = 0, zone: str = "nova", life: Life = Life.READY) -> Host:
    return Host(name, zone, life, count, used)


def refusal(hosts: list[Host], wish: Wish = WISH) -> str:
    with pytest.raises(NoValidHost) as caught:
        choose(simple, hosts, wish, random.Random(1))
    return str(caught.value)


def test_simple_takes_the_host_with_the_least_used() -> None:
    hosts = [host("a", used=3), host("b", used=1), host("c", used=2)]
    assert choose(simple, hosts, WISH, random.Random(1)).name == "b"


def test_simple_spreads_over_equal_hosts() -> None:
    dice = random.Random(1)
    seen = Counter(choose(simple, [host("a"), host("b")], WISH, dice).name for _ in range(200))
    assert min(seen["a"], seen["b"]) > 60


def test_chance_takes_any_host_whatever_is_on_it() -> None:
    dice = random.Random(1)
    seen = {choose(chance, [host("a", used=9), host("b")], WISH, dice).name for _ in range(50)}
    assert seen == {"a", "b"}


@pytest.mark.parametrize(
    ("hosts", "wish", "reason"),
    [
        ([], WISH, "no host is known"),
        ([host("a", life=Life.DOWN), host("b", life=Life.DISABLED)], WISH, "no host is up"),
        ([host("a", life=Life.COMING)], WISH, "no host is up"),
        ([host("a", used=16)], WISH, "no host has room for 1 vcpus"),
        ([host("a")], Wish(1, 16, "vcpus", zone="moon"), "no host is in the zone moon"),
        ([host("a")], Wish(1, 16, "vcpus", zone="nova:b"), "no host is called b"),
        ([host("a")], Wish(1, 16, "vcpus", excluded=frozenset({"a"})), "every host that is up has failed"),
    ],
)
def test_the_reason_is_the_one_that_left_no_host(hosts: list[Host], wish: Wish, reason: str) -> None:
    assert reason in refusal(hosts, wish)


def test_a_zone_with_a_host_forces_that_host() -> None:
    hosts = [host("a"), host("b", used=5)]
    assert choose(simple, hosts, Wish(1, 16, "vcpus", zone="nova:b"), random.Random(1)).name == "b"


HOSTS = st.lists(
    st.builds(
        Host,
        st.sampled_from("abcd"),
        st.sampled_from(["n", "m"]),
        st.sampled_from(Life),
        st.just(0),
        st.integers(0, 20),
    ),
    max_size=6,
)


@given(HOSTS, st.integers(1, 20), st.sampled_from([None, "n", "n:a"]), st.sampled_from(sorted(CHOICES)))
def test_whatever_is_chosen_may_take_it_and_has_room(hosts: list[Host], amount: int, zone, driver: str) -> None:
    wish = Wish(amount, 16, "vcpus", zone)
    try:
        chosen = choose(CHOICES[driver], hosts, wish, random.Random(1))
    except NoValidHost:
        fits = [item for item in hosts if item.life is Life.READY and item.used + amount <= 16]
        assert not [
            item for item in fits if zone is None or (item.zone == "n" and (zone == "n" or item.name == "a"))
        ]
        return
    assert chosen.life is Life.READY
    assert chosen.used + amount <= 16
    assert zone is None or chosen.zone == "n"
