"""Is a service up: the one rule, for schedulers and for people."""

from __future__ import annotations

from nova import flags
from nova.db.services import Service

FLAGS = flags.FLAGS


def service_is_up(service: Service) -> bool:
    """Whether the service reported within `service_down_time` seconds and has not said that it stopped.

    The age was computed by the database when the row was read; no clock of this host is asked.
    """
    return service.state != "stopped" and service.age_s <= FLAGS.service_down_time


def may_take_work(service: Service) -> bool:
    """Whether a scheduler may choose the service: up, enabled, and neither starting nor draining."""
    return service_is_up(service) and not service.disabled and service.state == "ready"
