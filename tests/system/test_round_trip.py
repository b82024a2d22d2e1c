"""boto3 through the whole cloud: the services as processes of their own, and all of them in one.

Where the cluster of the repository will do it is novad's fixture; a service with a flag of its own is started alone.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from novad.testing.chaos import Chaos
from novad.testing.handle import Nova
from tests.system.cloud import Cloud
from tests.system.round_trip import client, describe, round_trip, run_and_terminate, wait

IMAGE = "ami-00000001"


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def cloud(stack: contextlib.ExitStack, tmp_path: Path) -> Cloud:
    return Cloud(stack, tmp_path).start_all()


@pytest.mark.novad(fresh=True)
def test_boto3_makes_the_round_trip_and_again_after_each_service_was_killed(
    nova: Nova, nova_chaos: Chaos
) -> None:
    api, objectstore = nova.url("api"), nova.url("objectstore")
    round_trip(api, objectstore)
    for name in nova.names("all"):
        nova_chaos.kill(name)
        nova.wait(name, "ready", timeout=60)
        run_and_terminate(client("ec2", api))


@pytest.mark.novad(fresh=True)
def test_a_host_that_dies_with_a_guest_finds_it_again(nova: Nova, nova_chaos: Chaos) -> None:
    ec2 = client("ec2", nova.url("api"))
    made = ec2.run_instances(ImageId=IMAGE, MinCount=4, MaxCount=4, InstanceType="m1.tiny")["Instances"]
    instances = [item["InstanceId"] for item in made]
    wait(ec2, "instance_running", InstanceIds=instances)
    before = [describe(ec2, instance)["PrivateIpAddress"] for instance in instances]
    for host in nova.names("compute"):
        nova_chaos.kill(host)
        nova.wait(host, "ready", timeout=60)
    assert [describe(ec2, instance)["State"]["Name"] for instance in instances] == ["running"] * 4
    assert [describe(ec2, instance)["PrivateIpAddress"] for instance in instances] == before
    ec2.terminate_instances(InstanceIds=instances)
    wait(ec2, "instance_terminated", InstanceIds=instances)


def test_a_host_that_dies_while_building_builds_it_after_all(stack: contextlib.ExitStack, cloud: Cloud) -> None:
    for host in ("compute-1", "compute-2"):
        cloud.processes[host].signal("TERM")
        assert cloud.processes[host].wait() == 0
    deadly = cloud.start("nova-compute", "--fake_driver_crash=spawn:after", host="compute-1").wait_ready()
    ec2 = client("ec2", cloud.urls[0])
    made = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m1.tiny")["Instances"]
    assert deadly.wait() == -9
    assert describe(ec2, made[0]["InstanceId"])["State"]["Name"] == "pending"
    cloud.start("nova-compute", host="compute-1").wait_ready()
    wait(ec2, "instance_running", InstanceIds=[made[0]["InstanceId"]])


@pytest.fixture
def combined(stack: contextlib.ExitStack, tmp_path: Path) -> Cloud:
    cloud = Cloud(stack, tmp_path)
    flags = ("--objectstore_listen_port=0", "--api_listen_port=0")
    process = cloud.start("nova-combined", *flags).wait_ready(60.0)
    cloud.processes.update({"nova-api": process, "nova-objectstore": process})
    return cloud


def test_the_same_round_trip_passes_in_one_process(combined: Cloud) -> None:
    round_trip(*combined.urls)
    process = combined.processes["nova-combined"]
    listening = [int(url.rpartition(":")[2].partition("/")[0]) for url in combined.urls]
    process.signal("TERM")
    assert process.wait() == 0
    order = re.findall(r"(nova-\w+)(?:@\S+)? stops", process.log)
    assert order == [f"nova-{name}" for name in TIERS]
    assert "Traceback" not in process.log
    for port in listening:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


TIERS = ("api", "scheduler", "compute", "volume", "network", "objectstore", "broker")


def test_a_stop_in_one_process_finishes_the_instance_that_is_being_built(
    stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    cloud = Cloud(stack, tmp_path)
    flags = ("--objectstore_listen_port=0", "--api_listen_port=0")
    first = cloud.start("nova-combined", *flags, "--fake_driver_delay=1").wait_ready(60.0)
    cloud.processes["nova-api"] = first
    ec2 = client("ec2", cloud.url("api"))
    made = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m1.tiny")["Instances"]
    guests = Path(cloud.env["NOVA_STATE_PATH"], "instances", "nova-combined")
    wait_building(ec2, made[0]["InstanceId"], tmp_path)
    first.signal("TERM")
    assert first.wait() == 0
    assert [path.name for path in guests.iterdir()] == ["1.json"]
    second = cloud.start("nova-combined", *flags).wait_ready(60.0)
    cloud.processes["nova-api"] = second
    assert describe(client("ec2", cloud.url("api")), made[0]["InstanceId"])["State"]["Name"] == "running"


def wait_building(ec2, instance: str, folder: Path) -> None:
    """Until the host has begun: the address is taken before the guest is made."""
    found: dict = {}
    for _ in range(600):
        found = describe(ec2, instance)
        if "PrivateIpAddress" in found:
            break
    assert found["State"]["Name"] == "pending"
