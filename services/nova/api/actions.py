"""The actions of the EC2 API: name -> function and the parameters that it understands.

What is not here is answered with InvalidAction or UnknownParameter. A parameter that is ignored would be worse than one
that is refused: the client would believe in the subnet that it asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nova.api import addresses, groups, images, instances, keypairs, launch, tags, types, volumes, zones
from nova.api.call import Call, Reply
from nova.api.errors import Ec2Error

# Of every request; all but the first three are how requests were signed before version 4.
_COMMON = {
    "Action", "Version", "DryRun",
    "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp",
}  # fmt: skip
_PAGES = " Filter MaxResults NextToken"


@dataclass(frozen=True)
class Action:
    """`names` are the parameters up to their first dot."""

    function: Callable[[Call], Reply]
    names: frozenset[str]

    def __call__(self, call: Call) -> Reply:
        """Raises `Ec2Error`, before anything is done, for a parameter that is not understood."""
        for name in call.params:
            if name.partition(".")[0] not in self.names:
                raise Ec2Error("UnknownParameter", f"the parameter {name[:80]} is not understood here")
        return self.function(call)


def _action(function: Callable[[Call], Reply], names: str = "") -> Action:
    return Action(function, frozenset(_COMMON.union(names.split())))


_INSTANCES = "InstanceId"
_ADDRESS = "PublicIp AllocationId"
_GROUP = "GroupId GroupName"
_RULES = (
    f"{_GROUP} IpPermissions IpProtocol FromPort ToPort CidrIp SourceSecurityGroupName SourceSecurityGroupOwnerId"
)
_RUN = (
    "ImageId MinCount MaxCount InstanceType KeyName SecurityGroup SecurityGroupId UserData Placement ClientToken"
    " TagSpecification"
    " Monitoring EbsOptimized"  # nothing here could be monitored more closely, or be less optimized
)

ACTIONS: dict[str, Action] = {
    "AllocateAddress": _action(addresses.allocate_address, "Domain"),
    "AssociateAddress": _action(addresses.associate_address, f"{_ADDRESS} InstanceId AllowReassociation"),
    "AttachVolume": _action(volumes.attach_volume, "VolumeId InstanceId Device"),
    "AuthorizeSecurityGroupIngress": _action(groups.authorize_security_group_ingress, _RULES),
    "CreateKeyPair": _action(keypairs.create_key_pair, "KeyName KeyType TagSpecification"),
    "CreateSecurityGroup": _action(groups.create_security_group, "GroupName GroupDescription TagSpecification"),
    "CreateTags": _action(tags.create_tags, "ResourceId Tag"),
    "CreateVolume": _action(
        volumes.create_volume, "Size AvailabilityZone SnapshotId VolumeType ClientToken TagSpecification"
    ),
    "DeleteKeyPair": _action(keypairs.delete_key_pair, "KeyName KeyPairId"),
    "DeleteSecurityGroup": _action(groups.delete_security_group, _GROUP),
    "DeleteTags": _action(tags.delete_tags, "ResourceId Tag"),
    "DeleteVolume": _action(volumes.delete_volume, "VolumeId"),
    "DeregisterImage": _action(images.deregister_image, "ImageId"),
    "DescribeAddresses": _action(addresses.describe_addresses, "Filter PublicIp AllocationId"),
    "DescribeAvailabilityZones": _action(
        zones.describe_availability_zones, "Filter ZoneName ZoneId AllAvailabilityZones"
    ),
    "DescribeImageAttribute": _action(images.describe_image_attribute, "ImageId Attribute"),
    "DescribeImages": _action(images.describe_images, "ImageId Owner" + _PAGES),
    "DescribeInstanceAttribute": _action(instances.describe_instance_attribute, "InstanceId Attribute"),
    "DescribeInstanceStatus": _action(
        instances.describe_instance_status, "InstanceId IncludeAllInstances" + _PAGES
    ),
    "DescribeInstanceTypes": _action(types.describe_instance_types, "InstanceType" + _PAGES),
    "DescribeInstances": _action(instances.describe_instances, _INSTANCES + _PAGES),
    "DescribeKeyPairs": _action(keypairs.describe_key_pairs, "KeyName KeyPairId Filter"),
    "DescribeRegions": _action(zones.describe_regions, "RegionName AllRegions Filter"),
    "DescribeSecurityGroups": _action(groups.describe_security_groups, _GROUP + _PAGES),
    "DescribeTags": _action(tags.describe_tags, _PAGES),
    "DescribeVolumes": _action(volumes.describe_volumes, "VolumeId" + _PAGES),
    "DetachVolume": _action(volumes.detach_volume, "VolumeId InstanceId Device Force"),
    "DisassociateAddress": _action(addresses.disassociate_address, "PublicIp AssociationId"),
    "GetConsoleOutput": _action(instances.get_console_output, "InstanceId Latest"),
    "ImportKeyPair": _action(keypairs.import_key_pair, "KeyName PublicKeyMaterial TagSpecification"),
    "ModifyImageAttribute": _action(
        images.modify_image_attribute, "ImageId Attribute Description LaunchPermission"
    ),
    "RebootInstances": _action(instances.reboot_instances, _INSTANCES),
    "RegisterImage": _action(
        images.register_image, "Name ImageLocation Description Architecture TagSpecification"
    ),
    "ReleaseAddress": _action(addresses.release_address, _ADDRESS),
    "RevokeSecurityGroupIngress": _action(groups.revoke_security_group_ingress, _RULES),
    "RunInstances": _action(launch.run_instances, _RUN),
    "StartInstances": _action(instances.start_instances, _INSTANCES),
    "StopInstances": _action(instances.stop_instances, _INSTANCES + " Force"),
    "TerminateInstances": _action(instances.terminate_instances, _INSTANCES),
}
