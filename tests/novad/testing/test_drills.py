"""Drills and soaks against a real cluster: what is harmed comes back, or it is said that it did not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from novad.testing.soak import plan
from tests.novad.testing.running import Site, finished

CLUSTER = """
[services.web]
command = ["sh", "-c", "echo ready; exec sleep 1000"]
ready = { log = "ready" }
[services.frail]
command = ["sh", "-c", "mkdir once || exit 1; echo ready; exec sleep 1000"]
ready = { log = "ready" }
give_up_after = 1
"""


@pytest.fixture
def up(site: Site) -> Iterator[Site]:
    site.write(CLUSTER)
    code, _, err = finished(site.novad("up", "-d"))
    assert code == 0, err
    yield site
    assert finished(site.novad("down", "--kill"))[0] == 0


def test_each_drill_is_survived_and_undone(up: Site) -> None:
    for kind in ("kill", "flap", "freeze", "slow-start"):
        code, out, err = finished(up.novad("drill", kind, "web", "--hold", "100ms", "--json"))
        assert code == 0, err
        (drill,) = json.loads(out)["drills"]
        assert (drill["name"], drill["drill"]) == ("web", kind)
        assert drill["ready_again_s"] > (0.1 if kind in ("freeze", "slow-start") else 0.0)
        assert {seen.state for seen in up.live()} <= {"S", "R", "D"}
    code, out, err = finished(up.novad("drill", "kill", "frail", "--timeout", "5s"))
    assert code == 1
    assert "✖ frail  kill: not ready again" in out
    assert "why frail" in err


def test_a_soak_says_who_did_not_come_back_and_with_which_seed(up: Site) -> None:
    code, out, err = finished(up.novad("soak", "web", "--for", "700ms", "--seed", "7"))
    assert code == 0, err
    assert "0 not survived" in out
    assert "(seed 7)" in out
    killing = next(seed for seed in range(100) if next(plan(seed, ["frail"])).kind == "kill")
    code, out, err = finished(up.novad("soak", "frail", "--for", "10s", "--seed", str(killing)))
    assert code == 1, out + err
    assert "1 not survived" in out
    assert f"--seed {killing} repeats" in err


def test_a_seed_repeats_its_plan_and_another_does_not() -> None:
    def steps(seed: int, names: list[str]) -> list[object]:
        return list(itertools.islice(plan(seed, names), 50))

    assert steps(1, ["a", "b"]) == steps(1, ["b", "a"])
    assert steps(1, ["a", "b"]) != steps(2, ["a", "b"])
    assert {(step.name, step.kind) for step in itertools.islice(plan(1, ["a", "b"]), 100)} == set(
        itertools.product("ab", ("kill", "freeze"))
    )
