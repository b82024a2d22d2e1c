"""Who owns a cluster, and what their deaths do."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from tests.novad.daemon.running import Refused

SLEEP = ("sleep", "1000")


def test_the_last_of_several_leases_takes_the_cluster_down(daemon: Any) -> None:
    client = daemon.up(daemon.spec("a", *SLEEP))
    first, second = daemon.client(), daemon.client()
    assert first.ask("lease")["holders"] == 1
    assert second.ask("lease")["holders"] == 2
    assert second.ask("lease")["holders"] == 2, "one connection holds one lease"
    assert first.ask("lease", release=True)["holders"] == 1
    first.close()
    assert client.ask("status")["processes"][0]["state"] == "ready"
    second.close()
    assert daemon.process.wait(10) == 0
    assert daemon.live() == {}


def test_the_death_of_an_owner_ends_what_does_not_stop_within_the_grace(daemon: Any) -> None:
    owner = subprocess.Popen(SLEEP)
    client = daemon.up(daemon.spec("a", "sh", "-c", "trap '' TERM; while :; do sleep 1000; done"))
    client.ask("lease", owner_pid=owner.pid, grace_s=0.3)
    owner.kill()
    owner.wait()
    began_s = time.monotonic()
    assert daemon.process.wait(10) == 0
    assert time.monotonic() - began_s < 5, "its own stop timeout is 10 s"
    assert daemon.live() == {}


def test_an_owner_that_is_dead_already_ends_it_at_once(daemon: Any) -> None:
    owner = subprocess.Popen(["true"])
    owner.wait()
    client = daemon.up(daemon.spec("a", *SLEEP))
    client.send("lease", owner_pid=owner.pid, grace_s=0.3)
    assert daemon.process.wait(10) == 0


def test_whoever_comes_while_it_goes_down_is_sent_away(daemon: Any, eventually: Any) -> None:
    client = daemon.up(daemon.spec("a", "sh", "-c", "trap '' TERM; while :; do sleep 1000; done"))
    owner = daemon.client()
    owner.ask("lease", grace_s=1.0)
    owner.close()
    eventually(lambda: client.ask("status")["processes"][0]["state"] == "stopping")
    with pytest.raises(Refused, match="not_running"):
        client.ask("lease")
    assert daemon.process.wait(10) == 0
