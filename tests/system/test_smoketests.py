"""Nova's smoketests (Bexar: admin, user and public_network_smoketests): their steps, names and order.

The code is ours and the client is boto3. Where a step went into a guest by ping or ssh, the guest of the fake
hypervisor answers on its console; where it mounted a volume, the file behind the volume is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.system.cloud import Cloud
from tests.system.round_trip import IMAGE, client, describe, wait


class Suite:
    """Steps, which run in the order of their names and share what they set on `self`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.state = Path(cloud.env["NOVA_STATE_PATH"])
        self.ec2 = client("ec2", cloud.urls[0])
        self.s3 = client("s3", cloud.urls[1])

    def steps(self) -> list[str]:
        return sorted(name for name in dir(self) if name.startswith("test_"))

    def run(self, **arguments: Any) -> str:
        made = self.ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m1.tiny", **arguments)
        instance: str = made["Instances"][0]["InstanceId"]
        return instance

    def terminate(self, *instances: str) -> None:
        self.ec2.terminate_instances(InstanceIds=list(instances))
        wait(self.ec2, "instance_terminated", InstanceIds=list(instances))

    def console(self, instance: str) -> str:
        output: str = self.ec2.get_console_output(InstanceId=instance)["Output"]
        return output

    def refusal(self, call: Any, **arguments: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        code: str = caught.value.response["Error"]["Code"]
        return code


class AdminSuite(Suite):
    def manage(self, *words: str) -> Any:
        command = [sys.executable, "-c", "from nova.manage import main; main()", f"--state_path={self.state}"]
        env = {**os.environ, "PYTHONPATH": "services"}
        done = subprocess.run([*command, *words, "--json"], capture_output=True, text=True, env=env, check=True)
        return json.loads(done.stdout)

    def test_001_admin_can_connect(self) -> None:
        assert self.ec2.describe_availability_zones(ZoneNames=["verbose"])["AvailabilityZones"]

    def test_002_admin_can_create_user(self) -> None:
        self.user = self.manage("user", "create", "smoke", "--project", "smoke-project")

    def test_003_admin_can_create_project(self) -> None:
        """A project is there with its first user."""
        self.keys = self.user["access_key"], self.user["secret_key"]
        assert client("ec2", self.cloud.urls[0], self.keys).describe_instances()["Reservations"] == []

    def test_004_user_can_download_credentials(self) -> None:
        """The keys that were printed once open both APIs, and are not shown again."""
        assert client("s3", self.cloud.urls[1], self.keys).list_buckets()["Buckets"] == []
        assert "secret_key" not in self.manage("user", "list")[0]

    def test_999_tear_down(self) -> None:
        self.manage("user", "delete", "smoke")
        refused = client("ec2", self.cloud.urls[0], self.keys)
        assert self.refusal(refused.describe_instances) == "AuthFailure"


class ImageSuite(Suite):
    def test_001_can_bundle_image(self) -> None:
        self.bundle = os.urandom(100_000)
        self.s3.create_bucket(Bucket="smoke-bundles")

    def test_002_can_upload_image(self) -> None:
        self.s3.put_object(Bucket="smoke-bundles", Key="image", Body=self.bundle)

    def test_003_can_register_image(self) -> None:
        location = "smoke-bundles/image"
        self.image = self.ec2.register_image(Name="smoke-image", ImageLocation=location)["ImageId"]

    def test_004_can_bundle_kernel(self) -> None:
        self.kernel_bundle = os.urandom(10_000)

    def test_005_can_upload_kernel(self) -> None:
        self.s3.put_object(Bucket="smoke-bundles", Key="kernel", Body=self.kernel_bundle)

    def test_006_can_register_kernel(self) -> None:
        location = "smoke-bundles/kernel"
        self.kernel = self.ec2.register_image(Name="smoke-kernel", ImageLocation=location)["ImageId"]

    def test_007_images_are_available_within_10_seconds(self) -> None:
        wait(self.ec2, "image_available", ImageIds=[self.image, self.kernel])

    def test_008_can_describe_image_attribute(self) -> None:
        assert self.permissions() == []

    def test_009_can_modify_image_launch_permission(self) -> None:
        self.ec2.modify_image_attribute(ImageId=self.image, LaunchPermission={"Add": [{"Group": "all"}]})

    def test_010_can_see_launch_permission(self) -> None:
        assert self.permissions() == [{"Group": "all"}]

    def test_011_user_can_deregister_kernel(self) -> None:
        self.ec2.deregister_image(ImageId=self.kernel)

    def test_012_can_deregister_image(self) -> None:
        self.ec2.deregister_image(ImageId=self.image)
        assert self.refusal(self.ec2.describe_images, ImageIds=[self.image]) == "InvalidAMIID.NotFound"

    def test_013_can_delete_bundle(self) -> None:
        keys = [{"Key": "image"}, {"Key": "kernel"}]
        self.s3.delete_objects(Bucket="smoke-bundles", Delete={"Objects": keys})
        self.s3.delete_bucket(Bucket="smoke-bundles")

    def permissions(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.ec2.describe_image_attribute(
            ImageId=self.image, Attribute="launchPermission"
        )["LaunchPermissions"]
        return found


class InstanceSuite(Suite):
    def test_001_can_create_keypair(self) -> None:
        assert "PRIVATE KEY" in self.ec2.create_key_pair(KeyName="smoke-key")["KeyMaterial"]

    def test_002_can_create_instance_with_keypair(self) -> None:
        self.instance = self.run(KeyName="smoke-key")

    def test_003_instance_runs_within_60_seconds(self) -> None:
        wait(self.ec2, "instance_running", InstanceIds=[self.instance])
        self.address = describe(self.ec2, self.instance)["PrivateIpAddress"]

    def test_004_can_ping_private_ip(self) -> None:
        assert f"with address {self.address}" in self.console(self.instance)

    def test_005_can_ssh_to_private_ip(self) -> None:
        """The guest has the public half of the key."""
        guest = json.loads((self.state / "instances/nova-combined/").joinpath(self.guest_file()).read_text())
        assert guest["public_key"].startswith("ssh-rsa ")

    def test_006_can_allocate_elastic_ip(self) -> None:
        self.elastic = self.ec2.allocate_address()["PublicIp"]

    def test_007_can_associate_ip_with_instance(self) -> None:
        self.ec2.associate_address(PublicIp=self.elastic, InstanceId=self.instance)

    def test_008_can_ssh_with_public_ip(self) -> None:
        assert describe(self.ec2, self.instance)["PublicIpAddress"] == self.elastic

    def test_009_can_disassociate_ip_from_instance(self) -> None:
        self.ec2.disassociate_address(PublicIp=self.elastic)
        assert "PublicIpAddress" not in describe(self.ec2, self.instance)

    def test_010_can_deallocate_elastic_ip(self) -> None:
        self.ec2.release_address(PublicIp=self.elastic)
        assert self.ec2.describe_addresses()["Addresses"] == []

    def test_999_tear_down(self) -> None:
        self.terminate(self.instance)
        self.ec2.delete_key_pair(KeyName="smoke-key")

    def guest_file(self) -> str:
        return f"{int(self.instance.removeprefix('i-'), 16)}.json"


class VolumeSuite(Suite):
    def test_000_set_up(self) -> None:
        self.instance = self.run()
        wait(self.ec2, "instance_running", InstanceIds=[self.instance])

    def test_001_can_create_volume(self) -> None:
        self.volume = self.ec2.create_volume(Size=1, AvailabilityZone="nova")["VolumeId"]
        wait(self.ec2, "volume_available", VolumeIds=[self.volume])

    def test_002_can_attach_volume(self) -> None:
        self.ec2.attach_volume(VolumeId=self.volume, InstanceId=self.instance, Device="/dev/vdb")
        attached = [{"Name": "attachment.status", "Values": ["attached"]}]
        wait(self.ec2, "volume_in_use", VolumeIds=[self.volume], Filters=attached)

    def test_003_can_mount_volume(self) -> None:
        assert "/dev/vdb: volume" in self.console(self.instance)

    def test_004_can_write_to_volume(self) -> None:
        with self.file().open("r+b") as file:
            file.write(b"hello")
        with self.file().open("rb") as file:
            assert file.read(5) == b"hello"

    def test_005_volume_is_correct_size(self) -> None:
        assert self.file().stat().st_size == 1024**3

    def test_007_can_detach_volume(self) -> None:
        self.ec2.detach_volume(VolumeId=self.volume)
        wait(self.ec2, "volume_available", VolumeIds=[self.volume])
        assert "pulled out" in self.console(self.instance)

    def test_008_can_delete_volume(self) -> None:
        self.ec2.delete_volume(VolumeId=self.volume)
        wait(self.ec2, "volume_deleted", VolumeIds=[self.volume])
        assert not self.file().exists()

    def test_999_tear_down(self) -> None:
        self.terminate(self.instance)

    def file(self) -> Path:
        return self.state / "volumes/nova-combined" / f"volume-{self.volume.removeprefix('vol-')}"


class SecurityGroupSuite(Suite):
    def test_001_can_create_security_group(self) -> None:
        self.ec2.create_security_group(GroupName="smoke-group", Description="test group")

    def test_002_can_launch_instance_in_security_group(self) -> None:
        self.instance = self.run(SecurityGroups=["smoke-group"])
        wait(self.ec2, "instance_running", InstanceIds=[self.instance])
        assert describe(self.ec2, self.instance)["SecurityGroups"][0]["GroupName"] == "smoke-group"

    def test_003_can_authorize_security_group_ingress(self) -> None:
        self.ec2.authorize_security_group_ingress(GroupName="smoke-group", **self.http())

    def test_004_can_see_the_rule(self) -> None:
        assert [rule["FromPort"] for rule in self.rules()] == [80]

    def test_005_can_revoke_security_group_ingress(self) -> None:
        self.ec2.revoke_security_group_ingress(GroupName="smoke-group", **self.http())
        assert self.rules() == []

    def test_999_tear_down(self) -> None:
        assert self.refusal(self.ec2.delete_security_group, GroupName="smoke-group") == "DependencyViolation"
        self.terminate(self.instance)
        self.ec2.delete_security_group(GroupName="smoke-group")

    def http(self) -> dict[str, Any]:
        return {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "CidrIp": "0.0.0.0/0"}

    def rules(self) -> list[dict[str, Any]]:
        groups = self.ec2.describe_security_groups(GroupNames=["smoke-group"])["SecurityGroups"]
        rules: list[dict[str, Any]] = groups[0]["IpPermissions"]
        return rules


class PublicNetworkSuite(Suite):
    def test_001_can_create_keypair(self) -> None:
        self.ec2.create_key_pair(KeyName="smoke-net", KeyType="ed25519")

    def test_002_can_create_instance_with_keypair(self) -> None:
        self.first = self.run(KeyName="smoke-net")

    def test_003_instance_runs_within_60_seconds(self) -> None:
        wait(self.ec2, "instance_running", InstanceIds=[self.first])

    def test_012_can_create_instance_with_keypair(self) -> None:
        self.second = self.run(KeyName="smoke-net")

    def test_013_instance_runs_within_60_seconds(self) -> None:
        wait(self.ec2, "instance_running", InstanceIds=[self.second])

    def test_014_each_has_an_address_of_its_own(self) -> None:
        found = {describe(self.ec2, instance)["PrivateIpAddress"] for instance in (self.first, self.second)}
        assert len(found) == 2

    def test_999_tear_down(self) -> None:
        self.terminate(self.first, self.second)
        self.ec2.delete_key_pair(KeyName="smoke-net")


SUITES = (AdminSuite, ImageSuite, InstanceSuite, VolumeSuite, SecurityGroupSuite, PublicNetworkSuite)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with contextlib.ExitStack() as stack:
        cloud = Cloud(stack, tmp_path_factory.mktemp("smoke"))
        flags = ("--objectstore_listen_port=0", "--api_listen_port=0")
        process = cloud.start("nova-combined", *flags).wait_ready(60.0)
        cloud.processes.update({"nova-api": process, "nova-objectstore": process})
        yield cloud


@pytest.mark.parametrize("kind", SUITES, ids=lambda kind: kind.__name__)
def test_every_step_of_the_suite_passes(cloud: Cloud, kind: type[Suite]) -> None:
    suite = kind(cloud)
    assert len(suite.steps()) >= 5
    for step in suite.steps():
        try:
            getattr(suite, step)()
        except Exception as error:
            raise AssertionError(f"{kind.__name__}.{step}: {error}") from error
