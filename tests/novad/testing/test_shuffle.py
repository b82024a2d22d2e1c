"""Order fuzzing: every order keeps the graph, and a missing `after` is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novad.core.spec import Cluster, Dependency, Log, ProcessSpec
from novad.testing.shuffle import shuffled
from tests.novad.testing.running import Site

HIDDEN = """
[services.store]
command = ["sh", "-c", "touch here; exec sleep 1000"]
[services.web]
command = ["sh", "-c", "test -e here || { echo no store; exit 1; }; exec sleep 1000"]
give_up_after = 1
"""


def spec(name: str, *after: str, oneshot: bool = False) -> ProcessSpec:
    needed = tuple(Dependency(other, "ready") for other in after)
    service, _, number = name.partition(".")
    return ProcessSpec(name, service, int(number or 1), ("true",), "/", Log("/x"), after=needed, oneshot=oneshot)


SPECS = (spec("d", "b", "c"), spec("b", "a"), spec("c.1", "a"), spec("c.2"), spec("a", oneshot=True), spec("e"))
CLUSTER = Cluster("p", "n", "/nova.toml", "/", "/run", "/state", {}, SPECS)


def test_every_order_keeps_the_graph_and_many_orders_come() -> None:
    orders = set()
    for seed in range(200):
        cluster, order = shuffled(CLUSTER, seed)
        place = {name: number for number, name in enumerate(order)}
        assert sorted(order) == ["a", "b", "c.1", "c.2", "d", "e"]
        assert place["a"] < min(place["b"], place["c.1"])
        assert place["d"] > max(place["b"], place["c.1"], place["c.2"])
        added = {item.name: item.after[-1] for item in cluster.processes if item.name != order[0]}
        assert [added[name].name for name in order[1:]] == order[:-1]
        assert all(needed.condition == ("done" if needed.name == "a" else "ready") for needed in added.values())
        orders.add(tuple(order))
    assert len(orders) > 20


def test_the_order_comes_from_the_seed_and_not_from_the_file() -> None:
    backwards = replace(CLUSTER, processes=CLUSTER.processes[::-1])
    assert shuffled(CLUSTER, 5)[1] == shuffled(backwards, 5)[1]


@pytest.mark.parametrize(("first", "code"), [("store", 0), ("web", 125)])
def test_a_missing_after_is_found_by_the_order_that_needs_it(site: Site, first: str, code: int) -> None:
    site.write(HIDDEN)
    two = replace(CLUSTER, processes=(spec("store"), spec("web")))
    seed = next(seed for seed in range(100) if shuffled(two, seed)[1][0] == first)
    found, _, err = site.run("--shuffle", "--seed", str(seed), "--", "true")
    assert found == code, err
    assert ("web was started before store" in err) == (code == 125)
