"""The actions of the EC2 API: name -> function. What is not here is answered with InvalidAction."""

from __future__ import annotations

from nova.api import addresses, groups, images, instances, keypairs, launch, tags, types, volumes, zones
from nova.api.call import Action

ACTIONS: dict[str, Action] = {
    "AllocateAddress": addresses.allocate_address,
    "AssociateAddress": addresses.associate_address,
    "AttachVolume": volumes.attach_volume,
    "AuthorizeSecurityGroupIngress": groups.authorize_security_group_ingress,
    "CreateKeyPair": keypairs.create_key_pair,
    "CreateSecurityGroup": groups.create_security_group,
    "CreateTags": tags.create_tags,
    "CreateVolume": volumes.create_volume,
    "DeleteKeyPair": keypairs.delete_key_pair,
    "DeleteSecurityGroup": groups.delete_security_group,
    "DeleteTags": tags.delete_tags,
    "DeleteVolume": volumes.delete_volume,
    "DeregisterImage": images.deregister_image,
    "DescribeAddresses": addresses.describe_addresses,
    "DescribeAvailabilityZones": zones.describe_availability_zones,
    "DescribeImageAttribute": images.describe_image_attribute,
    "DescribeImages": images.describe_images,
    "DescribeInstanceAttribute": instances.describe_instance_attribute,
    "DescribeInstanceStatus": instances.describe_instance_status,
    "DescribeInstanceTypes": types.describe_instance_types,
    "DescribeInstances": instances.describe_instances,
    "DescribeKeyPairs": keypairs.describe_key_pairs,
    "DescribeRegions": zones.describe_regions,
    "DescribeSecurityGroups": groups.describe_security_groups,
    "DescribeTags": tags.describe_tags,
    "DescribeVolumes": volumes.describe_volumes,
    "DetachVolume": volumes.detach_volume,
    "DisassociateAddress": addresses.disassociate_address,
    "GetConsoleOutput": instances.get_console_output,
    "ImportKeyPair": keypairs.import_key_pair,
    "ModifyImageAttribute": images.modify_image_attribute,
    "RebootInstances": instances.reboot_instances,
    "RegisterImage": images.register_image,
    "ReleaseAddress": addresses.release_address,
    "RevokeSecurityGroupIngress": groups.revoke_security_group_ingress,
    "RunInstances": launch.run_instances,
    "StartInstances": instances.start_instances,
    "StopInstances": instances.stop_instances,
    "TerminateInstances": instances.terminate_instances,
}
