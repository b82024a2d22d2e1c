"""The repository's own nova.toml: a whole Nova cluster under novad, and every child of it killed in turn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nova.broker import admin, engine, protocol

from novad.host import proc
from tests.services.broker.conftest import BrokerProcess
from tests.system.client import Project, marked_processes, new_project
from tests.system.round_trip import round_trip

ROOT = Path(__file__).parents[2]
NAMES = ["broker", "network", "volume", "compute.1", "compute.2", "scheduler", "objectstore", "api"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Project]:
    shutil.copy(ROOT / "nova.toml", tmp_path)
    with new_project(tmp_path) as project:
        # Other checkouts on this machine keep their ports.
        project.write('[services.api]\nports = { ec2 = "auto" }\n[services.objectstore]\nports = { s3 = "auto" }\n',
                      "nova.local.toml")  # fmt: skip
        yield project


def rows(project: Project) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(project.novad("status", "--json").stdout)["processes"]}


def answers(port: int) -> str:
    """The product that a broker says it is before anybody logs in."""
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(protocol.PROTOCOL_HEADER)
        splitter, frames = protocol.FrameSplitter(protocol.FRAME_MAX), []
        while not frames:
            frames = splitter.feed(link.recv(65536))
    start = protocol.Arguments(frames[0][2])
    start.short()  # the version, in two octets
    product: str = start.table()["product"]
    return product


def test_every_child_may_be_killed_and_the_cluster_works_after_each(cluster: Project) -> None:
    up = cluster.novad("up", "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    shown = rows(cluster)
    assert list(shown) == NAMES
    assert {row["state"] for row in shown.values()} == {"ready"}
    urls = shown["api"]["url"], shown["objectstore"]["url"]
    round_trip(*urls)
    for name in NAMES:
        pid = rows(cluster)[name]["pid"]
        os.kill(pid, signal.SIGKILL)
        cluster.until(lambda dead=pid: not proc.is_alive(dead))
        wait = cluster.novad("wait", "--timeout", "20s")
        assert wait.returncode == 0, f"after the death of {name}: {wait.stdout}{wait.stderr}"
        assert rows(cluster)[name]["restarts"] == 1
        round_trip(*urls)
    down = cluster.novad("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert [pid for pid in marked_processes(cluster.directory) if proc.is_alive(pid)] == []
    assert [*(Path(cluster.environ["XDG_RUNTIME_DIR"]) / "novad").iterdir()] == []


def test_profile_rabbitmq_is_the_same_cluster_on_a_node_of_its_own(cluster: Project) -> None:
    if not any(map(shutil.which, engine.SERVERS)):
        if "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", ""):
            pytest.fail("rabbitmq-server is not installed")
        pytest.skip("rabbitmq-server is not installed")
    up = cluster.novad("--profile", "rabbitmq", "up", "-d", timeout_s=150.0)
    assert up.returncode == 0, up.stdout + up.stderr
    shown = rows(cluster)
    assert list(shown) == NAMES
    assert answers(shown["broker"]["ports"]["amqp"]) == "RabbitMQ"
    round_trip(shown["api"]["url"], shown["objectstore"]["url"])
    down = cluster.novad("down", timeout_s=90.0)
    assert down.returncode == 0, down.stdout + down.stderr
    assert [pid for pid in marked_processes(cluster.directory) if proc.is_alive(pid)] == []


def test_profile_external_uses_the_broker_of_nova_broker_and_starts_none(
    cluster: Project, tmp_path: Path
) -> None:
    missing = cluster.novad("--profile", "external", "up", "-d")
    assert missing.returncode == 78
    assert "`NOVA_BROKER` is not set" in missing.stderr
    broker = BrokerProcess(tmp_path / "elsewhere")
    try:
        cluster.environ["NOVA_BROKER"] = broker.url
        up = cluster.novad("--profile", "external", "up", "-d")
        assert up.returncode == 0, up.stdout + up.stderr
        shown = rows(cluster)
        assert list(shown) == [name for name in NAMES if name != "broker"]
        round_trip(shown["api"]["url"], shown["objectstore"]["url"])
        assert {"compute", "network"} <= {row["name"] for row in admin.ask(broker.folder, "queues")}
    finally:
        cluster.novad("down")
        broker.terminate()
