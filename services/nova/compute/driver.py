"""What nova-compute asks of a hypervisor. Every method may be repeated: it finds its work done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nova import exception


class DriverError(exception.Error):
    """The hypervisor could not do it."""


@dataclass(frozen=True)
class Guest:
    """An instance as a hypervisor needs it."""

    id: int
    name: str
    image_id: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    address: str
    public_key: str = ""
    user_data: str = ""


class Driver(Protocol):
    """Guests of one host, by instance id. All methods raise `DriverError`."""

    def init_host(self) -> None: ...

    def guests(self) -> dict[int, bool]:
        """Every guest of this host, and whether it is switched on."""
        ...

    def spawn(self, guest: Guest) -> None: ...

    def destroy(self, instance_id: int) -> None: ...

    def power_on(self, instance_id: int) -> None: ...

    def power_off(self, instance_id: int) -> None: ...

    def reboot(self, instance_id: int) -> None: ...

    def console(self, instance_id: int) -> str:
        """What the guest has written to its console."""
        ...

    def attach_volume(self, instance_id: int, volume_id: int, device: str) -> None: ...

    def detach_volume(self, instance_id: int, volume_id: int) -> None: ...
