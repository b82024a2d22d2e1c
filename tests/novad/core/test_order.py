"""The `after` graph against a reference, and selection of processes by name."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novad.core.errors import NoSuchService
from novad.core.order import Graph, Unmet, find_cycle
from novad.core.process import Process
from novad.core.select import select
from novad.core.spec import Condition, Dependency, Log, ProcessSpec


def spec(name: str, *after: str, condition: Condition = "ready") -> ProcessSpec:
    service = name.split(".")[0]
    wanted = tuple(Dependency(target, condition) for target in after)
    return ProcessSpec(name, service, 1, ("x",), "/", Log(f"/{name}.log"), after=wanted)


CLUSTER = [
    spec("broker"),
    spec("api", "broker", "compute"),
    spec("compute.1", "broker"),
    spec("compute.2", "broker"),
]


def test_a_service_name_stands_for_all_its_replicas() -> None:
    assert Graph(CLUSTER).targets("api") == ["broker", "compute.1", "compute.2"]
    assert Graph(CLUSTER).dependents("broker") == ["api", "compute.1", "compute.2"]
    assert {"broker", "api", "compute.1", "compute.2"} <= set(Graph(CLUSTER).dependent_closure(["broker"]))
    assert Graph(CLUSTER).dependent_closure(["compute.2"]) == ["compute.2", "api"]


def test_what_is_needed_comes_before_what_needs_it() -> None:
    assert Graph(CLUSTER).closure(["api"]) == ["broker", "compute.1", "compute.2", "api"]


def test_a_dependency_is_unmet_until_every_replica_satisfies_it() -> None:
    processes = {item.name: Process(item) for item in CLUSTER}
    processes["broker"] = replace(processes["broker"], state="ready")
    processes["compute.1"] = replace(processes["compute.1"], state="ready")
    assert Graph(CLUSTER).unmet("api", processes) == [Unmet("compute.2", "ready", "stopped")]
    assert Graph(CLUSTER).unmet("compute.2", processes) == []


@pytest.mark.parametrize(
    ("condition", "state", "holds"),
    [
        ("started", "starting", True),
        ("ready", "starting", False),
        ("ready", "done", True),
        ("done", "ready", False),
    ],
)
def test_what_satisfies_a_condition(condition: Condition, state: str, holds: bool) -> None:
    specs = [spec("db"), spec("api", "db", condition=condition)]
    processes = {"db": Process(specs[0], state=state), "api": Process(specs[1])}
    assert (Graph(specs).unmet("api", processes) == []) is holds


def test_a_process_is_held_up_by_those_that_leave_too_and_still_need_it() -> None:
    processes = {item.name: Process(item, state="ready") for item in CLUSTER}
    graph = Graph(CLUSTER)
    assert graph.holds_up("broker", ["broker", "api"], processes) == ["api"]
    processes["api"] = replace(processes["api"], state="stopped")
    assert graph.holds_up("broker", ["broker", "api"], processes) == []


def test_a_cycle_is_a_path_that_ends_where_it_began() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert find_cycle({"a": ["a"]}) == ["a", "a"]
    assert find_cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) is None


@given(st.dictionaries(st.integers(0, 20), st.lists(st.integers(0, 20), max_size=5), max_size=20))
def test_a_cycle_is_found_exactly_where_there_is_one(edges: dict[int, list[int]]) -> None:
    graph = {str(key): [str(item) for item in items] for key, items in edges.items()}
    remaining = dict(graph)
    while leaves := [k for k, items in remaining.items() if not any(i in remaining for i in items)]:
        for leaf in leaves:
            del remaining[leaf]
    cycle = find_cycle(graph)
    assert (cycle is None) == (not remaining)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(second in graph[first] for first, second in itertools.pairwise(cycle))


SPECS = {item.name: item for item in CLUSTER}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["compute.2"], ["compute.2"]),
        (["compute"], ["compute.1", "compute.2"]),
        (["control"], ["broker", "api"]),
        (["comp*"], ["compute.1", "compute.2"]),
        (["all"], list(SPECS)),
        ([], list(SPECS)),
        (["compute", "broker"], ["broker", "compute.1", "compute.2"]),
    ],
)
def test_a_selector_is_a_process_a_service_a_group_a_glob_or_all(patterns: list[str], names: list[str]) -> None:
    assert select(patterns, SPECS, {"control": ("api", "broker")}) == names


def test_a_selector_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(NoSuchService) as caught:
        select(["brokr"], SPECS, {})
    assert caught.value.message == "no such service: brokr"
    assert caught.value.hint == "did you mean broker?"
