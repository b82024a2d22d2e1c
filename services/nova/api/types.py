"""Instance types: names for so many vcpus, so much memory and disk. The m1 family is Nova's."""

from __future__ import annotations

from dataclasses import dataclass

from nova.api import filters
from nova.api.call import Call, Reply, items
from nova.api.errors import Ec2Error


@dataclass(frozen=True)
class InstanceType:
    vcpus: int
    memory_mb: int
    disk_gb: int


DEFAULT = "m1.small"
TYPES = {
    "m1.tiny": InstanceType(1, 512, 0),
    "m1.small": InstanceType(1, 2048, 20),
    "m1.medium": InstanceType(2, 4096, 40),
    "m1.large": InstanceType(4, 8192, 80),
    "m1.xlarge": InstanceType(8, 16384, 160),
    "t2.micro": InstanceType(1, 1024, 8),
}

FILTERS = {
    "instance-type": filters.field("instanceType"),
    "vcpu-info.default-vcpus": filters.field("vCpuInfo", "defaultVCpus"),
    "memory-info.size-in-mib": filters.field("memoryInfo", "sizeInMiB"),
}


def get(name: str) -> InstanceType:
    """Raises `Ec2Error`."""
    if name not in TYPES:
        raise Ec2Error("InvalidParameterValue", f"{name[:80]!r} is no instance type here: {', '.join(TYPES)}")
    return TYPES[name]


def describe_instance_types(call: Call) -> Reply:
    names = call.params.texts("InstanceType") or list(TYPES)
    for name in names:
        if name not in TYPES:
            raise Ec2Error("InvalidInstanceType", f"{name[:80]!r} is no instance type here")
    rows = [(number, _view(name)) for number, name in enumerate(names, 1)]
    matching = filters.apply(call.params, rows, FILTERS, lambda row: row[1])
    shown, token = filters.page(
        call.params, matching, lambda row: row[0], bool(call.params.texts("InstanceType"))
    )
    return {"instanceTypeSet": items([view for _, view in shown]), "nextToken": token}


def _view(name: str) -> Reply:
    kind = TYPES[name]
    return {
        "instanceType": name,
        "currentGeneration": True,
        "vCpuInfo": {"defaultVCpus": kind.vcpus},
        "memoryInfo": {"sizeInMiB": kind.memory_mb},
        "instanceStorageSupported": kind.disk_gb > 0,
        "instanceStorageInfo": {"totalSizeInGB": kind.disk_gb} if kind.disk_gb else None,
        "supportedRootDeviceTypes": items(["instance-store"]),
        "processorInfo": {"supportedArchitectures": items(["x86_64"])},
    }
