"""The pytest plugin: what pytest calls, and nothing more.

Loaded into every pytest run where novad is installed, so it imports nothing of novad until a test asks for a
cluster. What a cluster is to a test run is in `novad.testing.clusters`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from novad.testing.chaos import Chaos
    from novad.testing.clusters import Clusters
    from novad.testing.handle import Nova
    from novad.testing.logs import Marks

MODES = ("auto", "shared", "worker", "attach", "off")
OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("novad", "auto", f"the cluster of the `nova` fixture: {', '.join(MODES)} (docs/ci.md)"),
    ("novad-profile", "", "the profile of nova.toml"),
    ("novad-file", "", "the nova.toml; default: the nearest one above the root directory"),
    ("novad-logs", "failed", "add the lines of the services to the reports of tests: failed, all, none"),
    ("novad-timeout", "120", "seconds that a cluster may take to get ready"),
    ("novad-report", "", "a directory for the logs of all clusters"),
)
CLUSTERS = pytest.StashKey["Clusters"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("novad", "clusters of real processes")
    for name, default, text in OPTIONS:
        choices: dict[str, Any] = {"choices": MODES} if name == "novad" else {}
        group.addoption(f"--{name}", default=None, help=text, **choices)
        parser.addini(name.replace("-", "_"), text, default=default)
    group.addoption("--novad-keep", action="store_true", help="leave the clusters running")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "novad(profile=None, services=None, fresh=False): the cluster of this test; fresh: one of its module's own",
    )
    config.addinivalue_line(
        "markers", "novad_allow_crash(*names): these services (none named: all) may crash in this test"
    )


def clusters_of(config: pytest.Config) -> Clusters:
    """The clusters of this run, made when somebody asks."""
    if CLUSTERS not in config.stash:
        from novad.testing.clusters import Clusters

        config.stash[CLUSTERS] = Clusters(config)
    return config.stash[CLUSTERS]


def existing(config: pytest.Config) -> Clusters | None:
    return config.stash.get(CLUSTERS, None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    # After pytest's own look at skip marks, which comes first of all, and before it sets up fixtures.
    if "nova" in getattr(item, "fixturenames", ()):
        clusters_of(item.config).choose(item)
    elif (clusters := existing(item.config)) is not None:
        clusters.mark_logs()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    clusters = existing(item.config)
    if clusters is not None:
        clusters.complete(item, report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if (clusters := existing(item.config)) is not None:
        clusters.close_fresh(nextitem)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (clusters := existing(session.config)) is not None and clusters.finish() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if (clusters := existing(config)) is not None:
        for line in clusters.summary:
            terminalreporter.write_line(f"novad: {line}")


@pytest.fixture(scope="session")
def nova(pytestconfig: pytest.Config) -> Nova:
    """The cluster of this test: started when the first test asks, ready, and gone when the run ends."""
    return clusters_of(pytestconfig).nova()


@pytest.fixture
def nova_chaos(nova: Nova) -> Iterator[Chaos]:
    """Kills, pauses and stops services; undoes it all when the test ends, and waits until they are ready again."""
    from novad.testing.chaos import Chaos

    chaos = Chaos(nova)
    yield chaos
    chaos.undo()


@pytest.fixture(scope="session")
def nova_factory(pytestconfig: pytest.Config) -> Callable[..., Nova]:
    """Starts a further cluster: `nova_factory(profile=..., services=[...])`."""
    return clusters_of(pytestconfig).make


@pytest.fixture
def nova_log_mark(nova: Nova) -> Marks:
    """The lines since the test began, `.lines("api")`, or since the last `.set()`."""
    return nova.new_marks()
