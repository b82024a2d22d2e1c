"""The repository's own cluster as a fixture: what a project that uses novad writes."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from novad.testing.chaos import Chaos
from novad.testing.handle import Nova
from tests.system.round_trip import round_trip

pytestmark = pytest.mark.skipif(
    not any(found.name == "novad" for found in entry_points(group="pytest11")),
    reason="the plugin is not installed: scripts/test installs it",
)


def test_the_cloud_serves(nova: Nova) -> None:
    round_trip(nova.url("api"), nova.url("objectstore"))


def test_the_cloud_serves_after_its_scheduler_and_a_host_were_killed(nova: Nova, nova_chaos: Chaos) -> None:
    nova_chaos.kill("scheduler")
    nova_chaos.kill("compute.1")
    for name in ("scheduler", "compute.1"):
        nova.wait(name, "ready", timeout=30)
    round_trip(nova.url("api"), nova.url("objectstore"))


def test_a_paused_service_is_no_crash_and_goes_on(nova: Nova, nova_chaos: Chaos) -> None:
    nova_chaos.pause("volume")
    nova_chaos.resume("volume")
    assert nova.state("volume") == "ready"
    assert set(nova.names("data")) == {"compute.1", "compute.2", "network", "volume", "objectstore"}
