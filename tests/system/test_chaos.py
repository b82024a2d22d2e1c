"""Services are killed at random while instances and volumes come and go: nothing is lost, and nothing left."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.system.cloud import SERVICES, Cloud
from tests.system.round_trip import IMAGE, client

KILLS = 12
VICTIMS = ("nova-broker", *SERVICES)
# What an action answers where the thing is in another state than the dice thought.
EXPECTED = {"IncorrectInstanceState", "IncorrectState", "VolumeInUse", "InvalidParameterValue"}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    quick = {"NOVA_REPORT_INTERVAL": "1", "NOVA_ADDRESS_REAP_AFTER": "1", "NOVA_MAX_CORES": "500"}
    with contextlib.ExitStack() as stack:
        yield Cloud(stack, tmp_path, NOVA_FAKE_DRIVER_DELAY="0.02", **quick).start_all()


class Tenant:
    """Somebody who does things at random and remembers what should be there."""

    def __init__(self, ec2: Any, dice: random.Random) -> None:
        self.ec2 = ec2
        self.dice = dice
        self.instances: set[str] = set()
        self.volumes: set[str] = set()

    def act(self) -> None:
        action = self.dice.choice(
            [self.run, self.run, self.terminate, self.create_volume, self.attach, self.change]
        )
        try:
            action()
        except ClientError as error:
            if error.response["Error"]["Code"] not in EXPECTED:
                raise

    def run(self) -> None:
        made = self.ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=2, InstanceType="m1.tiny")
        self.instances |= {item["InstanceId"] for item in made["Instances"]}

    def terminate(self) -> None:
        if self.instances:
            instance = self.dice.choice(sorted(self.instances))
            self.ec2.terminate_instances(InstanceIds=[instance])
            self.instances.discard(instance)

    def create_volume(self) -> None:
        self.volumes.add(self.ec2.create_volume(Size=1, AvailabilityZone="nova")["VolumeId"])

    def attach(self) -> None:
        if self.instances and self.volumes:
            volume, instance = (self.dice.choice(sorted(some)) for some in (self.volumes, self.instances))
            device = f"/dev/vd{self.dice.choice('bcdefgh')}"
            self.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device=device)

    def change(self) -> None:
        if self.instances:
            verbs = (self.ec2.stop_instances, self.ec2.start_instances, self.ec2.reboot_instances)
            self.dice.choice(verbs)(InstanceIds=[self.dice.choice(sorted(self.instances))])

    def states(self) -> dict[str, str]:
        reservations = self.ec2.describe_instances()["Reservations"]
        return {item["InstanceId"]: item["State"]["Name"] for part in reservations for item in part["Instances"]}


def test_nothing_is_lost_and_nothing_left_when_services_die_at_random(cloud: Cloud) -> None:
    seed = random.SystemRandom().randrange(1000)
    print(f"seed {seed}")  # shown where it fails
    dice = random.Random(seed)
    tenant = Tenant(client("ec2", cloud.urls[0]), dice)
    for _ in range(KILLS):
        for _ in range(dice.randrange(1, 6)):
            tenant.act()
        cloud.kill(dice.choice(VICTIMS))
    for process in cloud.processes.values():
        process.wait_ready(60.0)

    resting = {"running", "stopped", "terminated"}
    until(lambda: set(tenant.states().values()) <= resting, tenant.states)
    lost = {instance: tenant.states()[instance] for instance in tenant.instances}
    assert set(lost.values()) <= {"running", "stopped"}, lost
    if tenant.instances:
        assert left(cloud, tenant)  # what lives holds something, so the check below can fail
        tenant.ec2.terminate_instances(InstanceIds=sorted(tenant.instances))
    until(lambda: set(tenant.states().values()) <= {"terminated"}, tenant.states)
    until(lambda: not left(cloud, tenant), lambda: left(cloud, tenant))
    for name, process in cloud.processes.items():
        assert "Traceback" not in process.log, f"{name}:\n{process.log}"


def left(cloud: Cloud, tenant: Tenant) -> list[str]:
    """Guests, addresses and attachments that belong to nobody any more."""
    state = Path(cloud.env["NOVA_STATE_PATH"])
    guests = [str(path) for path in (state / "instances").glob("*/*.json")]
    with contextlib.closing(sqlite3.connect(state / "nova.sqlite")) as db:
        held = db.execute("SELECT address FROM fixed_ips WHERE instance_id IS NOT NULL").fetchall()
    volumes = tenant.ec2.describe_volumes()["Volumes"]
    return (
        guests + [row[0] for row in held] + [item["VolumeId"] for item in volumes if item["State"] != "available"]
    )


def until(what: Callable[[], bool], show: Callable[[], object], deadline_s: float = 40.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end_s, show()
        time.sleep(0.05)
