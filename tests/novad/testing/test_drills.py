"""Drills and soaks against a real cluster: what is harmed comes back, or it is said that it did not."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator

import pytest

from novad.testing.soak import plan
from tests.novad.testing.running import DEADLINE_S, Site, finished

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
    for kind in ("kill", "flap", "freeze", "slow-start", "fill-log"):
        code, out, err = finished(up.novad("drill", kind, "web", "--hold", "100ms", "--json"))
        assert code == 0, err
        (drill,) = json.loads(out)["drills"]
        assert (drill["name"], drill["drill"]) == ("web", kind)
        assert drill["ready_again_s"] > (0.1 if kind in ("freeze", "slow-start", "fill-log") else 0.0)
        assert {seen.state for seen in up.live()} <= {"S", "R", "D"}
    code, out, err = finished(up.novad("drill", "kill", "frail", "--timeout", "5s"))
    assert code == 1
    assert "✖ frail  kill: not ready again" in out
    assert "why frail" in err


SERVER = """
[services.web]
command = ["python3", "-u", "-c", '''
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    server.accept()[0].close()
''']
ports = { http = "auto" }
env = { PORT = "${port.http}" }
ready = { tcp = "http" }
"""


@pytest.mark.parametrize("end", ["its time", "kill -9"])
def test_a_dropped_port_is_open_again_whatever_becomes_of_the_drill(site: Site, end: str) -> None:
    site.write(SERVER)
    assert finished(site.novad("up", "-d"))[0] == 0
    port = json.loads(finished(site.novad("status", "--json"))[1])["processes"][0]["ports"]["http"]
    drill = site.novad("drill", "drop-port", "web", "--hold", "1s" if end == "its time" else "1000s")
    until_s = time.monotonic() + DEADLINE_S
    while answers(port, 0.3):
        assert time.monotonic() < until_s, "the port never went deaf"
    if end == "its time":
        code, out, err = finished(drill)
        assert (code, "web  drop-port: ready again after 1" in out) == (0, True), out + err
    else:
        drill.kill()
        drill.communicate()
    assert answers(port, DEADLINE_S)
    assert finished(site.novad("down"))[0] == 0


def answers(port: int, seconds: float) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), seconds).close()
    except TimeoutError:
        return False
    return True


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


def test_a_soak_wears_nobody_out(site: Site) -> None:
    """Its kills come faster than `give_up_after` forgets them."""
    site.write('[services.web]\ncommand = "sleep 1000"\ngive_up_after = 2\n')
    assert finished(site.novad("up", "-d"))[0] == 0
    code, out, err = finished(site.novad("soak", "--for", "6s", "--seed", "3", "--json"))
    assert code == 0, err
    assert [item["drill"] for item in json.loads(out)["drills"]].count("kill") > 2
    assert finished(site.novad("down"))[0] == 0


def test_two_soaks_of_one_seed_do_the_same_and_another_seed_does_not(site: Site) -> None:
    names = ("a", "b", "c")
    site.write("".join(f'[services.{name}]\ncommand = "sleep 1000"\n' for name in names))
    assert finished(site.novad("up", "-d"))[0] == 0
    done = [finished(site.novad("soak", "--for", "5s", "--seed", seed, "--json")) for seed in ("11", "11", "12")]
    assert [code for code, _, _ in done] == [0, 0, 0], done
    first, again, other = (
        [(item["name"], item["drill"]) for item in json.loads(out)["drills"]] for _, out, _ in done
    )
    # How far each comes in its time is the machine's doing.
    count = min(len(first), len(again), len(other))
    assert count >= 3
    assert first[:count] == again[:count]
    assert first[:count] != other[:count]
    assert finished(site.novad("down"))[0] == 0


def test_a_seed_repeats_its_plan_and_another_does_not() -> None:
    def steps(seed: int, names: list[str]) -> list[object]:
        return list(itertools.islice(plan(seed, names), 50))

    assert steps(1, ["a", "b"]) == steps(1, ["b", "a"])
    assert steps(1, ["a", "b"]) != steps(2, ["a", "b"])
    assert {(step.name, step.kind) for step in itertools.islice(plan(1, ["a", "b"]), 100)} == set(
        itertools.product("ab", ("kill", "freeze"))
    )
