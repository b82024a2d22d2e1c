"""A hypervisor of files: each guest is a JSON file, so guests outlive nova-compute as real ones do.

It does all that a test or a demonstration needs and no more. Knobs make it slow, broken, stuck or deadly at a
step; a step is a method's name, or `method:after` for the moment when its work is done but not reported.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nova import flags, green
from nova.compute.driver import DriverError, Guest

FLAGS = flags.FLAGS
flags.DEFINE_float(
    "fake_driver_delay", 0.0, "seconds that each step of the fake hypervisor takes", mutable=True, least=0
)
flags.DEFINE_list("fake_driver_fail", [], "steps of the fake hypervisor that fail", mutable=True)
flags.DEFINE_list("fake_driver_hang", [], "steps of the fake hypervisor that never end", mutable=True)
flags.DEFINE_list("fake_driver_crash", [], "steps of the fake hypervisor that kill the process", mutable=True)


class FakeDriver:
    """Guests in a folder. Files are small, so reading one does not stop the hub for long."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def init_host(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.glob("*.new"):
            path.unlink()

    def guests(self) -> dict[int, bool]:
        return {int(path.stem): bool(self._load(int(path.stem))["is_on"]) for path in self.root.glob("*.json")}

    def spawn(self, guest: Guest) -> None:
        self._fault("spawn")
        if not self._path(guest.id).exists():
            self._save(guest.id, {**asdict(guest), "is_on": True, "volumes": {}, "console": []})
            self._say(guest.id, f"booting {guest.name} from {guest.image_id} with address {guest.address}")
        self._fault("spawn:after")

    def destroy(self, instance_id: int) -> None:
        self._fault("destroy")
        self._path(instance_id).unlink(missing_ok=True)
        self._fault("destroy:after")

    def power_on(self, instance_id: int) -> None:
        self._fault("power_on")
        self._change(instance_id, is_on=True)
        self._say(instance_id, "switched on")
        self._fault("power_on:after")

    def power_off(self, instance_id: int) -> None:
        self._fault("power_off")
        self._change(instance_id, is_on=False)
        self._say(instance_id, "switched off")
        self._fault("power_off:after")

    def reboot(self, instance_id: int) -> None:
        self._fault("reboot")
        self._change(instance_id, is_on=True)
        self._say(instance_id, "rebooted")
        self._fault("reboot:after")

    def console(self, instance_id: int) -> str:
        return "".join(f"{line}\n" for line in self._load(instance_id)["console"])

    def attach_volume(self, instance_id: int, volume_id: int, device: str) -> None:
        self._fault("attach_volume")
        volumes = self._load(instance_id)["volumes"]
        self._change(instance_id, volumes={**volumes, str(volume_id): device})
        self._say(instance_id, f"{device}: volume {volume_id} plugged in")
        self._fault("attach_volume:after")

    def detach_volume(self, instance_id: int, volume_id: int) -> None:
        self._fault("detach_volume")
        if self._path(instance_id).exists():
            volumes = self._load(instance_id)["volumes"]
            device = volumes.pop(str(volume_id), None)
            self._change(instance_id, volumes=volumes)
            if device:
                self._say(instance_id, f"{device}: volume {volume_id} pulled out")
        self._fault("detach_volume:after")

    def _path(self, instance_id: int) -> Path:
        return self.root / f"{instance_id}.json"

    def _load(self, instance_id: int) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._path(instance_id).read_text())
        except FileNotFoundError:
            raise DriverError(f"this host has no guest {instance_id}") from None
        return found

    def _save(self, instance_id: int, guest: dict[str, Any]) -> None:
        path = self._path(instance_id)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(guest))
        os.replace(new, path)

    def _change(self, instance_id: int, **values: Any) -> None:
        self._save(instance_id, {**self._load(instance_id), **values})

    def _say(self, instance_id: int, line: str) -> None:
        self._change(instance_id, console=[*self._load(instance_id)["console"], line])

    def _fault(self, step: str) -> None:
        if FLAGS.fake_driver_delay and ":" not in step:
            green.sleep(FLAGS.fake_driver_delay)
        if step in FLAGS.fake_driver_crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if step in FLAGS.fake_driver_hang:
            green.Event().wait()
        if step in FLAGS.fake_driver_fail:
            raise DriverError(f"the fake hypervisor was told to fail at {step}")
