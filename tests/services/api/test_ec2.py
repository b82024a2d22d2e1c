"""The EC2 API as unmodified boto3 uses it, against real services in this process."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from nova import flags
from nova.db import session, users

pytestmark = pytest.mark.native

FAST = {"Delay": 0.02, "MaxAttempts": 500}
IMAGE = "ami-00000001"


def code(call, *args, **kwargs) -> str:
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response["Error"]["Code"]


def run(ec2, count: int = 1, **kwargs) -> list[str]:
    made = ec2.run_instances(ImageId=IMAGE, MinCount=count, MaxCount=count, InstanceType="m1.tiny", **kwargs)
    return [instance["InstanceId"] for instance in made["Instances"]]


def wait_for(ec2, state: str, *instances: str) -> None:
    ec2.get_waiter(f"instance_{state}").wait(InstanceIds=list(instances), WaiterConfig=FAST)


def instance_of(ec2, instance: str) -> dict:
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def until(what, deadline_s: float = 10.0):
    end_s = time.monotonic() + deadline_s
    while not (found := what()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return found


def test_an_instance_runs_with_an_address_and_is_terminated(ec2, cloud) -> None:
    data = base64.b64encode(b"#!/bin/sh\n").decode()
    (instance,) = run(ec2, UserData="#!/bin/sh\n")
    wait_for(ec2, "running", instance)
    found = instance_of(ec2, instance)
    assert found["State"] == {"Code": 16, "Name": "running"}
    assert found["PrivateIpAddress"].startswith("10.0.0.")
    assert (found["ImageId"], found["InstanceType"]) == (IMAGE, "m1.tiny")
    attribute = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert attribute["UserData"]["Value"] == data
    assert "booting" in ec2.get_console_output(InstanceId=instance)["Output"]
    (change,) = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    wait_for(ec2, "terminated", instance)
    gone = instance_of(ec2, instance)
    assert gone["State"] == {"Code": 48, "Name": "terminated"}
    assert "PrivateIpAddress" not in gone
    assert gone["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_several_are_one_reservation_on_several_hosts(ec2, cloud) -> None:
    instances = run(ec2, 4)
    wait_for(ec2, "running", *instances)
    (reservation,) = ec2.describe_instances()["Reservations"]
    found = reservation["Instances"]
    assert [item["AmiLaunchIndex"] for item in found] == [0, 1, 2, 3]
    assert len({item["PrivateIpAddress"] for item in found}) == 4
    assert len(cloud["c1"].manager.driver.guests()) == len(cloud["c2"].manager.driver.guests()) == 2


def test_stop_start_and_reboot(ec2, cloud) -> None:
    with flags.FLAGS.override(fake_driver_delay=2.0):  # or it may run before it is to be stopped
        (instance,) = run(ec2)
        assert code(ec2.stop_instances, InstanceIds=[instance]) == "IncorrectInstanceState"
    wait_for(ec2, "running", instance)
    assert (
        ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]["CurrentState"]["Name"] == "stopping"
    )
    wait_for(ec2, "stopped", instance)
    assert code(ec2.reboot_instances, InstanceIds=[instance]) == "IncorrectInstanceState"
    assert ec2.start_instances(InstanceIds=[instance])["StartingInstances"][0]["CurrentState"]["Code"] == 0
    wait_for(ec2, "running", instance)
    ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: "rebooted" in ec2.get_console_output(InstanceId=instance)["Output"])


def test_the_same_client_token_launches_once(ec2, cloud) -> None:
    first, second = (run(ec2, ClientToken="t-1") for _ in range(2))
    assert first == second
    assert code(run, ec2, 2, ClientToken="t-1") == "IdempotentParameterMismatch"
    assert len(ec2.describe_instances()["Reservations"]) == 1


def test_a_project_has_no_more_instances_than_its_quota(ec2, cloud) -> None:
    with flags.FLAGS.override(quota_instances=3):
        made = ec2.run_instances(ImageId=IMAGE, MinCount=2, MaxCount=5)["Instances"]
        assert len(made) == 3
        assert code(ec2.run_instances, ImageId=IMAGE, MinCount=1, MaxCount=1) == "InstanceLimitExceeded"


def test_without_a_valid_host_the_instance_is_terminated_and_says_why(ec2, cloud) -> None:
    with flags.FLAGS.override(max_cores=0):
        (instance,) = run(ec2)
        until(lambda: instance_of(ec2, instance)["State"]["Name"] == "terminated")
    reason = instance_of(ec2, instance)["StateReason"]
    assert reason["Code"] == "Server.InsufficientInstanceCapacity"
    assert "no host has room for 1 vcpus" in reason["Message"]


def test_what_no_host_has_is_terminated_at_once(ec2, api_url) -> None:
    (instance,) = run(ec2)  # there are no services at all
    (change,) = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("pending", "terminated")


def test_terminating_twice_succeeds_and_changes_nothing(ec2, cloud) -> None:
    (instance,) = run(ec2)
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for(ec2, "terminated", instance)
    (change,) = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == change["PreviousState"]["Name"] == "terminated"


def test_terminating_while_it_is_built_leaves_nothing(ec2, cloud) -> None:
    with flags.FLAGS.override(fake_driver_delay=0.05):
        instances = run(ec2, 6)
        ec2.terminate_instances(InstanceIds=instances)
        wait_for(ec2, "terminated", *instances)
    until(lambda: not cloud["c1"].manager.driver.guests() and not cloud["c2"].manager.driver.guests())
    (again,) = run(ec2)
    wait_for(ec2, "running", again)


def test_either_all_instances_of_a_request_change_or_none(ec2, cloud) -> None:
    (instance,) = run(ec2)
    wait_for(ec2, "running", instance)
    assert code(ec2.terminate_instances, InstanceIds=[instance, "i-00000fff"]) == "InvalidInstanceID.NotFound"
    assert instance_of(ec2, instance)["State"]["Name"] == "running"


def test_filters_pages_and_status(ec2, cloud) -> None:
    one = run(ec2, TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "name", "Value": "web-1"}]}])
    others = run(ec2, 6)
    wait_for(ec2, "running", *one, *others)

    def found(**filters_: str) -> list[str]:
        wanted = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters_.items()]
        answer = ec2.describe_instances(Filters=wanted)
        return [item["InstanceId"] for part in answer["Reservations"] for item in part["Instances"]]

    assert found(instance_state_name="run*") == one + others
    assert found(instance_state_name="stopped") == []
    assert found(**{"tag:name": "web-?"}) == one
    assert (
        code(ec2.describe_instances, Filters=[{"Name": "nonsense", "Values": ["x"]}]) == "InvalidParameterValue"
    )
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    assert [sum(len(part["Instances"]) for part in page["Reservations"]) for page in pages] == [5, 2]
    assert len(ec2.describe_instance_status()["InstanceStatuses"]) == 7
    ec2.stop_instances(InstanceIds=one)
    wait_for(ec2, "stopped", *one)
    assert len(ec2.describe_instance_status()["InstanceStatuses"]) == 6
    assert len(ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]) == 7


def test_a_volume_is_made_attached_detached_and_deleted(ec2, cloud) -> None:
    (instance,) = run(ec2)
    volume = ec2.create_volume(Size=1, AvailabilityZone="nova")["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=FAST)
    wait_for(ec2, "running", instance)
    attached = ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/vdb")
    assert (attached["State"], attached["InstanceId"]) == ("attaching", instance)
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig=FAST)
    until(lambda: ec2.describe_volumes()["Volumes"][0]["Attachments"][0]["State"] == "attached")
    assert instance_of(ec2, instance)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == volume
    assert code(ec2.delete_volume, VolumeId=volume) == "VolumeInUse"
    assert code(ec2.attach_volume, VolumeId=volume, InstanceId=instance, Device="/dev/vdc") == "VolumeInUse"
    ec2.detach_volume(VolumeId=volume)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=FAST)
    assert code(ec2.detach_volume, VolumeId=volume) == "IncorrectState"
    ec2.delete_volume(VolumeId=volume)
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume], WaiterConfig=FAST)
    assert code(ec2.describe_volumes, VolumeIds=[volume]) == "InvalidVolume.NotFound"


def test_a_volume_is_made_once_for_a_token_and_within_the_quota(ec2, cloud) -> None:
    same = [ec2.create_volume(Size=2, AvailabilityZone="nova", ClientToken="v")["VolumeId"] for _ in range(2)]
    assert same[0] == same[1]
    retry = {"AvailabilityZone": "nova", "ClientToken": "v"}
    assert code(ec2.create_volume, Size=3, **retry) == "IdempotentParameterMismatch"
    assert code(ec2.create_volume, Size=999, AvailabilityZone="nova") == "VolumeLimitExceeded"
    assert code(ec2.create_volume, Size=1, AvailabilityZone="moon") == "InvalidZone.NotFound"
    assert code(ec2.create_volume, Size=0, AvailabilityZone="nova") == "InvalidParameterValue"


def test_an_elastic_address_leads_to_an_instance(ec2, cloud) -> None:
    (instance,) = run(ec2)
    wait_for(ec2, "running", instance)
    allocated = ec2.allocate_address(Domain="vpc")
    address, allocation = allocated["PublicIp"], allocated["AllocationId"]
    association = ec2.associate_address(AllocationId=allocation, InstanceId=instance)["AssociationId"]
    assert instance_of(ec2, instance)["PublicIpAddress"] == address
    (shown,) = ec2.describe_addresses()["Addresses"]
    assert (shown["InstanceId"], shown["PrivateIpAddress"][:7]) == (instance, "10.0.0.")
    assert code(ec2.release_address, AllocationId=allocation) == "InvalidIPAddress.InUse"
    ec2.disassociate_address(AssociationId=association)
    ec2.associate_address(PublicIp=address, InstanceId=instance)
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for(ec2, "terminated", instance)
    assert "InstanceId" not in ec2.describe_addresses()["Addresses"][0]
    ec2.release_address(AllocationId=allocation)
    assert ec2.describe_addresses()["Addresses"] == []
    assert code(ec2.release_address, AllocationId=allocation) == "InvalidAllocationID.NotFound"
    with flags.FLAGS.override(quota_floating_ips=0):
        assert code(ec2.allocate_address) == "AddressLimitExceeded"


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_key_pair_is_a_pair(ec2, tmp_path: Path, kind: str) -> None:
    made = ec2.create_key_pair(KeyName="k", KeyType=kind)
    key = tmp_path / "key"
    key.write_text(made["KeyMaterial"])
    key.chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
    ec2.import_key_pair(KeyName="imported", PublicKeyMaterial=public.encode())
    pairs = {item["KeyName"]: item for item in ec2.describe_key_pairs()["KeyPairs"]}
    assert pairs["k"]["KeyFingerprint"] == pairs["imported"]["KeyFingerprint"] == made["KeyFingerprint"]
    listed = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout
    assert made["KeyFingerprint"] in listed
    assert code(ec2.create_key_pair, KeyName="k") == "InvalidKeyPair.Duplicate"
    ec2.delete_key_pair(KeyName="k")
    assert code(ec2.describe_key_pairs, KeyNames=["k"]) == "InvalidKeyPair.NotFound"
    assert code(ec2.import_key_pair, KeyName="x", PublicKeyMaterial=b"ssh-rsa bm8=") == "InvalidKey.Format"


def test_an_instance_knows_its_key_and_groups(ec2, cloud) -> None:
    assert code(run, ec2, KeyName="absent") == "InvalidKeyPair.NotFound"
    assert code(run, ec2, SecurityGroups=["absent"]) == "InvalidGroup.NotFound"
    ec2.create_key_pair(KeyName="k", KeyType="ed25519")
    group = ec2.create_security_group(GroupName="web", Description="d")["GroupId"]
    (instance,) = run(ec2, KeyName="k", SecurityGroupIds=[group])
    found = instance_of(ec2, instance)
    assert (found["KeyName"], found["SecurityGroups"]) == ("k", [{"GroupId": group, "GroupName": "web"}])
    assert code(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[instance])
    wait_for(ec2, "terminated", instance)
    ec2.delete_security_group(GroupId=group)


def test_rules_of_a_group_are_added_shown_and_revoked(ec2) -> None:
    group = ec2.create_security_group(GroupName="web", Description="d")["GroupId"]
    http = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupName": "default"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[http, inside])
    duplicate = {"GroupId": group, "IpPermissions": [http]}
    assert code(ec2.authorize_security_group_ingress, **duplicate) == "InvalidPermission.Duplicate"
    (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert shown["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    assert shown["IpPermissions"][1]["UserIdGroupPairs"][0]["GroupName"] == "default"
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[http])
    assert code(ec2.revoke_security_group_ingress, **duplicate) == "InvalidPermission.NotFound"
    (shown,) = ec2.describe_security_groups(GroupNames=["web"])["SecurityGroups"]
    assert [rule["IpProtocol"] for rule in shown["IpPermissions"]] == ["-1"]
    assert code(ec2.delete_security_group, GroupName="default") == "CannotDelete"
    assert code(ec2.create_security_group, GroupName="web", Description="d") == "InvalidGroup.Duplicate"
    bad = {"GroupId": group, "IpProtocol": "tcp", "FromPort": 9, "ToPort": 8, "CidrIp": "0.0.0.0/0"}
    assert code(ec2.authorize_security_group_ingress, **bad) == "InvalidParameterValue"


def test_images_are_registered_shared_and_deregistered(ec2, ec2_for, other_user) -> None:
    (default,) = ec2.describe_images()["Images"]
    assert (default["ImageId"], default["State"], default["Public"]) == (IMAGE, "available", True)
    image = ec2.register_image(Name="mine", ImageLocation="bucket/image", Description="d")["ImageId"]
    other = ec2_for(*other_user)
    assert code(other.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    everybody = {"Add": [{"Group": "all"}]}
    ec2.modify_image_attribute(ImageId=image, LaunchPermission=everybody)
    assert other.describe_images(ImageIds=[image])["Images"][0]["Name"] == "mine"
    assert code(other.deregister_image, ImageId=image) == "AuthFailure"
    shown = ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")
    assert shown["LaunchPermissions"] == [{"Group": "all"}]
    ec2.deregister_image(ImageId=image)
    assert code(ec2.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    assert code(ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1) == "InvalidAMIID.NotFound"


def test_tags_are_put_found_and_removed(ec2, cloud) -> None:
    instance, volume = run(ec2)[0], ec2.create_volume(Size=1, AvailabilityZone="nova")["VolumeId"]
    ec2.create_tags(Resources=[instance, volume], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
    ec2.create_tags(Resources=[instance], Tags=[{"Key": "a", "Value": "2"}])
    found = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["a"]}])["Tags"]
    assert {(tag["ResourceType"], tag["Value"]) for tag in found} == {("instance", "2"), ("volume", "1")}
    ec2.delete_tags(Resources=[instance], Tags=[{"Key": "a", "Value": "1"}])  # it has another value
    assert {tag["Key"] for tag in instance_of(ec2, instance)["Tags"]} == {"a", "b"}
    ec2.delete_tags(Resources=[instance, volume])
    assert ec2.describe_tags()["Tags"] == []
    assert code(ec2.create_tags, Resources=["i-00000fff"], Tags=[{"Key": "a"}]) == "InvalidInstanceID.NotFound"
    assert code(ec2.create_tags, Resources=["x-1"], Tags=[{"Key": "a"}]) == "InvalidID"


def test_zones_regions_and_types(ec2, cloud) -> None:
    assert ec2.describe_regions()["Regions"][0]["RegionName"] == "nova"
    (zone,) = ec2.describe_availability_zones()["AvailabilityZones"]
    assert (zone["ZoneName"], zone["State"]) == ("nova", "available")
    lines = ec2.describe_availability_zones(ZoneNames=["verbose"])["AvailabilityZones"]
    shown = {line["ZoneName"]: line["State"] for line in lines[1:]}
    assert shown["|- c1 nova-compute"].startswith("enabled :-) ready")
    tiny = ec2.describe_instance_types(InstanceTypes=["m1.tiny"])["InstanceTypes"][0]
    assert (tiny["VCpuInfo"]["DefaultVCpus"], tiny["MemoryInfo"]["SizeInMiB"]) == (1, 512)
    assert code(ec2.describe_instance_types, InstanceTypes=["x9"]) == "InvalidInstanceType"


@pytest.fixture
def other_user(state_path: Path) -> tuple[str, str]:
    with session.begin() as s:
        user = users.create(s, "other", access_key="OTHER")
        return user.access_key, user.secret_key


def test_a_project_sees_only_what_is_its_own(ec2, ec2_for, cloud, other_user) -> None:
    (instance,) = run(ec2)
    other = ec2_for(*other_user)
    assert other.describe_instances()["Reservations"] == []
    for action in (other.describe_instances, other.terminate_instances):
        assert code(action, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
    assert code(other.describe_availability_zones, ZoneNames=["verbose"]) == "UnauthorizedOperation"
    borrowed = ec2_for(f"{other_user[0]}:nova", other_user[1])
    assert code(borrowed.describe_instances) == "AuthFailure"
    assert ec2_for("nova:other").describe_instances()["Reservations"] == []  # an administrator may


def test_who_is_not_known_or_not_right_is_refused(ec2_for) -> None:
    assert code(ec2_for("nobody").describe_regions) == "AuthFailure"
    assert code(ec2_for("nova", "wrong").describe_regions) == "SignatureDoesNotMatch"


def test_the_api_answers_at_both_of_its_paths_and_nowhere_else(ec2_for) -> None:
    assert ec2_for(path="").describe_regions()["Regions"]
    assert code(ec2_for(path="/elsewhere").describe_regions) == "InvalidAction"


def test_a_dry_run_does_nothing(ec2) -> None:
    assert code(ec2.run_instances, ImageId=IMAGE, MinCount=1, MaxCount=1, DryRun=True) == "DryRunOperation"
    assert ec2.describe_instances()["Reservations"] == []


def test_an_action_that_is_not_there_and_values_that_are_wrong_are_named(ec2) -> None:
    assert code(ec2.create_vpc, CidrBlock="10.0.0.0/16") == "InvalidAction"
    assert code(ec2.run_instances, ImageId=IMAGE, MinCount=2, MaxCount=1) == "InvalidParameterValue"
    wrong = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}
    assert code(ec2.run_instances, **wrong, InstanceType="x9") == "InvalidParameterValue"
    assert code(ec2.run_instances, **wrong, UserData="x" * 20000) == "InvalidParameterValue"
    assert code(ec2.describe_instances, InstanceIds=["nonsense"]) == "InvalidInstanceID.Malformed"


def test_a_parameter_that_is_not_understood_is_refused_before_anything_is_done(ec2) -> None:
    wanted = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}
    assert code(ec2.run_instances, **wanted, SubnetId="subnet-1") == "UnknownParameter"
    assert code(ec2.run_instances, **wanted, Placement={"GroupName": "g"}) == "UnknownParameter"
    assert code(ec2.run_instances, **wanted, Placement={"Tenancy": "host"}) == "UnsupportedOperation"
    assert code(ec2.create_volume, Size=1, AvailabilityZone="nova", Encrypted=True) == "UnknownParameter"
    assert ec2.describe_instances()["Reservations"] == ec2.describe_volumes()["Volumes"] == []


def test_a_database_that_is_locked_is_a_service_unavailable(ec2, state_path: Path) -> None:
    ec2.describe_instances()
    with (
        sqlite3.connect(state_path / "nova.sqlite", isolation_level=None) as another,
        flags.FLAGS.override(sql_timeout=0.1),
    ):
        another.execute("BEGIN IMMEDIATE")
        assert code(ec2.create_key_pair, KeyName="k", KeyType="ed25519") == "ServiceUnavailable"
        another.execute("ROLLBACK")
    another.close()
    ec2.create_key_pair(KeyName="k", KeyType="ed25519")


def test_an_answer_with_an_element_that_ec2_does_not_have_is_found(checked) -> None:
    """The negative control of the check that every answer of these tests goes through (see `Checked`)."""
    from nova import xmlwriter

    def application(environ, start_response):
        value = {"requestId": "r", "regionInfo": {"item": [{"regionName": "n", "colour": "red"}]}, "extra": 1}
        return [xmlwriter.document("DescribeRegionsResponse", value)]

    application = checked(application)
    application({}, None)
    assert application.strange == [
        "DescribeRegionsResponse.regionInfo.item.colour",
        "DescribeRegionsResponse.extra",
    ]
