"""Regions and zones; for an administrator, DescribeAvailabilityZones with the zone `verbose` shows the services."""

from __future__ import annotations

from nova import flags, servicegroup
from nova.api import filters
from nova.api.call import Call, Reply, items
from nova.api.errors import Ec2Error
from nova.db import services
from nova.db.services import Service

FLAGS = flags.FLAGS
flags.DEFINE_string("region", "nova", "name of the only region of the EC2 API")
flags.DEFINE_string("api_listen", "127.0.0.1", "address on which the EC2 API listens")
flags.DEFINE_integer("api_listen_port", 8773, "port on which the EC2 API listens", least=0)

ZONE_FILTERS = {"zone-name": filters.field("zoneName"), "state": filters.field("zoneState")}
REGION_FILTERS = {"region-name": filters.field("regionName"), "endpoint": filters.field("regionEndpoint")}


def describe_regions(call: Call) -> Reply:
    view = {
        "regionName": FLAGS.region,
        "regionEndpoint": f"{FLAGS.api_listen}:{FLAGS.api_listen_port}/services/Cloud",
        "optInStatus": "opt-in-not-required",
    }
    for name in call.params.texts("RegionName"):
        if name != FLAGS.region:
            raise Ec2Error("InvalidParameterValue", f"there is no region {name[:80]!r}")
    return {"regionInfo": items(filters.apply(call.params, [view], REGION_FILTERS, lambda item: item))}


def describe_availability_zones(call: Call) -> Reply:
    wanted = call.params.texts("ZoneName")
    found = services.get_all()
    if wanted == ["verbose"]:
        if not call.context.is_admin:
            raise Ec2Error("UnauthorizedOperation", "only an administrator may see the services")
        return {
            "availabilityZoneInfo": items([_zone(name, True) for name in zone_names(found)] + _verbose(found))
        }
    up = {service.availability_zone for service in found if servicegroup.may_take_work(service)}
    names = zone_names(found)
    for name in wanted:
        if name not in names:
            raise Ec2Error("InvalidParameterValue", f"there is no zone {name[:80]!r}")
    views = [_zone(name, name in up) for name in wanted or names]
    return {"availabilityZoneInfo": items(filters.apply(call.params, views, ZONE_FILTERS, lambda item: item))}


def zone_names(found: list[Service]) -> list[str]:
    """Zones that have a compute or volume host; the default zone always exists."""
    hosts = [service for service in found if service.topic in (FLAGS.compute_topic, FLAGS.volume_topic)]
    return sorted({service.availability_zone for service in hosts} | {FLAGS.node_availability_zone})


def smiley(service: Service) -> str:
    """`:-)` for a service that is up, `XXX` for one that is not; Nova's signs."""
    return ":-)" if servicegroup.service_is_up(service) else "XXX"


def _zone(name: str, is_up: bool) -> Reply:
    return {
        "zoneName": name,
        "zoneState": "available" if is_up else "unavailable",
        "regionName": FLAGS.region,
        "zoneId": name,
        "optInStatus": "opt-in-not-required",
    }


def _verbose(found: list[Service]) -> list[Reply]:
    """One line a service, in the two texts that a zone has; the layout is Nova's."""
    lines: list[Reply] = []
    for service in found:
        enabled = "disabled" if service.disabled else "enabled"
        text = f"{enabled} {smiley(service)} {service.state}, seen {service.age_s:.0f} s ago"
        lines.append({"zoneName": f"|- {service.host} {service.binary}", "zoneState": text})
    return lines
