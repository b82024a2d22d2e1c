"""What a user of the cloud does, from outside: unmodified boto3 against two URLs, whoever runs what is behind them."""

from __future__ import annotations

import os
from typing import Any

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError

MIB = 1024 * 1024
IMAGE = "ami-00000001"
KEYS = ("nova", "nova")  # of the development user


def client(kind: str, url: str, keys: tuple[str, str] = KEYS) -> Any:
    """boto3's client for `ec2` or `s3`; a call that fails is not repeated."""
    return boto3.client(
        kind,
        endpoint_url=url,
        region_name="nova",
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60),
    )


def round_trip(ec2_url: str, s3_url: str) -> None:
    """One request through every service: run an instance, attach a volume, store an object, end it all."""
    ec2, s3 = client("ec2", ec2_url), client("s3", s3_url)
    image = store_and_register(ec2, s3)
    run_and_terminate(ec2, image)
    ec2.deregister_image(ImageId=image)


def store_and_register(ec2: Any, s3: Any) -> str:
    """Put 10 MB, get them back, register them as an image; returns its id."""
    data = os.urandom(10 * MIB)
    bucket = f"images-{os.urandom(4).hex()}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="image", Body=data)
    assert s3.get_object(Bucket=bucket, Key="image")["Body"].read() == data
    image: str = ec2.register_image(Name=bucket, ImageLocation=f"{bucket}/image")["ImageId"]
    s3.delete_object(Bucket=bucket, Key="image")
    s3.delete_bucket(Bucket=bucket)
    return image


def run_and_terminate(ec2: Any, image: str = IMAGE) -> None:
    """An instance through its whole life, with an address and a volume."""
    made = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="m1.tiny")
    instance = made["Instances"][0]["InstanceId"]
    wait(ec2, "instance_running", InstanceIds=[instance])
    address = describe(ec2, instance)["PrivateIpAddress"]
    assert f"with address {address}" in ec2.get_console_output(InstanceId=instance)["Output"]
    attach_and_delete_volume(ec2, instance)
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, "instance_terminated", InstanceIds=[instance])
    assert "PrivateIpAddress" not in describe(ec2, instance)
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.describe_instances(InstanceIds=["i-00ffffff"])


def attach_and_delete_volume(ec2: Any, instance: str) -> None:
    volume = ec2.create_volume(Size=1, AvailabilityZone="nova")["VolumeId"]
    wait(ec2, "volume_available", VolumeIds=[volume])
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/vdb")
    wait(ec2, "volume_in_use", VolumeIds=[volume])
    # In use is also what is still being attached.
    wait(ec2, "volume_in_use", Filters=[{"Name": "attachment.status", "Values": ["attached"]}])
    ec2.detach_volume(VolumeId=volume)
    wait(ec2, "volume_available", VolumeIds=[volume])
    ec2.delete_volume(VolumeId=volume)
    wait(ec2, "volume_deleted", VolumeIds=[volume])


def describe(ec2: Any, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return found


def wait(ec2: Any, waiter: str, **arguments: Any) -> None:
    """boto3's own waiter, asking often; 30 s at most."""
    ec2.get_waiter(waiter).wait(**arguments, WaiterConfig={"Delay": 0.05, "MaxAttempts": 600})
