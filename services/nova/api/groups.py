"""Security groups and their rules for what may come in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from sqlalchemy import orm

from nova import exception
from nova.api import errors, filters, ids
from nova.api.call import DONE, Call, Reply, items, specified_tags, tag_set
from nova.api.errors import Ec2Error
from nova.api.query import Params
from nova.db import groups, instances, session, tags
from nova.db.groups import Rule, SecurityGroup

FILTERS = {
    "group-id": filters.field("groupId"),
    "group-name": filters.field("groupName"),
    "description": filters.field("groupDescription"),
    "owner-id": filters.field("ownerId"),
    "ip-permission.protocol": filters.field("ipPermissions", "item", "ipProtocol"),
    "ip-permission.from-port": filters.field("ipPermissions", "item", "fromPort"),
    "ip-permission.to-port": filters.field("ipPermissions", "item", "toPort"),
    "ip-permission.cidr": filters.field("ipPermissions", "item", "ipRanges", "item", "cidrIp"),
}
_PROTOCOLS = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "-1": "-1", "6": "tcp", "17": "udp", "1": "icmp"}

RuleKey = tuple[Any, ...]


def create_security_group(call: Call) -> Reply:
    name = call.params.required("GroupName", max_length=255)
    description = call.params.required("GroupDescription", max_length=255)
    given = specified_tags(call.params, "security-group")
    try:
        with session.begin() as s:
            groups.ensure_default(s, call.project_id)
            made = groups.create(s, call.project_id, name, description)
            group_id = ids.of("sg", made.id)
            for key, value in given.items():
                tags.put(s, call.project_id, group_id, key, value)
    except exception.Duplicate as error:
        raise Ec2Error("InvalidGroup.Duplicate", str(error)) from None
    return {"return": True, "groupId": group_id, "tagSet": tag_set(given)}


def describe_security_groups(call: Call) -> Reply:
    names = call.params.texts("GroupName")
    numbers = [ids.parse("sg", text) for text in call.params.texts("GroupId")]
    with session.begin() as s:
        groups.ensure_default(s, call.project_id)
        found = groups.get_all(s, call.project_id)
        tagged = tags.of(s, [ids.of("sg", group.id) for group in found])
    for name in names:
        if name not in {group.name for group in found}:
            raise Ec2Error("InvalidGroup.NotFound", f"there is no security group {name}")
    for number in numbers:
        if number not in {group.id for group in found}:
            raise ids.not_found("sg", ids.of("sg", number))
    numbers_by_name = {group.name: group.id for group in found}
    wanted = [group for group in found if not (names or numbers) or group.name in names or group.id in numbers]
    rows = [(group.id, _view(group, tagged.get(ids.of("sg", group.id), {}), numbers_by_name)) for group in wanted]
    rows.sort(key=lambda row: row[0])
    matching = filters.apply(call.params, rows, FILTERS, lambda row: row[1])
    shown, token = filters.page(call.params, matching, lambda row: row[0], bool(names or numbers))
    return {"securityGroupInfo": items([view for _, view in shown]), "nextToken": token}


def delete_security_group(call: Call) -> Reply:
    with session.begin() as s:
        group = _find(s, call, call.params)
        if group.name == groups.DEFAULT:
            raise Ec2Error("CannotDelete", "the default security group cannot be deleted")
        alive = [item for item in instances.visible(s, call.project_id) if not item.is_gone]
        users = [ids.of("i", item.id) for item in alive if group.name in item.security_groups]
        others = [item.name for item in groups.get_all(s, call.project_id) if item.id != group.id]
        referring = [
            item.name
            for item in groups.get_all(s, call.project_id)
            if item.name in others and group.name in {rule.source_group for rule in item.rules}
        ]
        if users or referring:
            raise Ec2Error("DependencyViolation", f"{group.name} is used by {', '.join(users + referring)}")
        tags.remove(s, call.project_id, ids.of("sg", group.id), None, None)
        s.delete(group)
        return {"return": True, "groupId": ids.of("sg", group.id)}


def authorize_security_group_ingress(call: Call) -> Reply:
    def add(group: SecurityGroup, wanted: list[RuleKey]) -> None:
        present = {rule.key for rule in group.rules}
        for key in wanted:
            if key in present:
                raise Ec2Error("InvalidPermission.Duplicate", f"the rule {_words(key)} exists already")
            group.rules.append(_rule(key))

    return _change(call, add)


def revoke_security_group_ingress(call: Call) -> Reply:
    def remove(group: SecurityGroup, wanted: list[RuleKey]) -> None:
        present = {rule.key: rule for rule in group.rules}
        for key in wanted:
            if key not in present:
                raise Ec2Error("InvalidPermission.NotFound", f"there is no rule {_words(key)}")
            group.rules.remove(present[key])

    return _change(call, remove)


def resolve(s: orm.Session, project_id: str, params: Params) -> list[SecurityGroup]:
    """The groups that an instance is started in, the default one where the request names none."""
    found = []
    for name in params.texts("SecurityGroup"):
        group = groups.find(s, project_id, name)
        if group is None and name != groups.DEFAULT:
            raise Ec2Error("InvalidGroup.NotFound", f"there is no security group {name}")
        found.append(group or groups.ensure_default(s, project_id))
    for text in params.texts("SecurityGroupId"):
        group = groups.get(s, project_id, ids.parse("sg", text))
        if group is None:
            raise ids.not_found("sg", text)
        found.append(group)
    return found or [groups.ensure_default(s, project_id)]


def _change(call: Call, change: Callable[[SecurityGroup, list[RuleKey]], None]) -> Reply:
    with session.begin() as s:
        groups.ensure_default(s, call.project_id)
        wanted = _read_rules(s, call)
        change(_find(s, call, call.params), list(dict.fromkeys(wanted)))
    return DONE


def _find(s: orm.Session, call: Call, params: Params) -> SecurityGroup:
    """The group that `params` name. Raises `EC2Error` where there is none."""
    text, name = params.text("GroupId"), params.text("GroupName")
    if not text and not name:
        raise errors.missing("GroupId")
    if text:
        found = groups.get(s, call.project_id, ids.parse("sg", text))
    else:
        found = groups.find(s, call.project_id, name)
    if found is None:
        raise ids.not_found("sg", text or name)
    return found


def _read_rules(s: orm.Session, call: Call) -> list[RuleKey]:
    """Every (protocol, ports, source) of the request, in either of its two forms."""
    permissions = call.params.structures("IpPermissions")
    if not permissions and "IpProtocol" in call.params:
        protocol, first, last = _ports(call.params)
        return [(protocol, first, last, _cidr(call.params.required("CidrIp")), None)]
    if not permissions and "SourceSecurityGroupName" in call.params:
        name = call.params.required("SourceSecurityGroupName")
        if groups.find(s, call.project_id, name) is None:
            raise ids.not_found("sg", name)
        return [("-1", None, None, None, name)]
    rules = [rule for permission in permissions for rule in _read_permission(s, call, permission)]
    if not rules:
        raise errors.missing("IpPermissions")
    return rules


def _read_permission(s: orm.Session, call: Call, permission: Params) -> list[RuleKey]:
    protocol, first, last = _ports(permission)
    cidrs = [_cidr(item.required("CidrIp")) for item in permission.structures("IpRanges")]
    cidrs += [_cidr(item.required("CidrIpv6")) for item in permission.structures("Ipv6Ranges")]
    sources = [_find(s, call, pair).name for pair in permission.structures("Groups")]
    return [(protocol, first, last, cidr, None) for cidr in cidrs] + [
        (protocol, first, last, None, source) for source in sources
    ]


def _ports(params: Params) -> tuple[str, int | None, int | None]:
    protocol = _PROTOCOLS.get(params.required("IpProtocol").lower())
    if protocol is None:
        raise errors.invalid("IpProtocol", params.text("IpProtocol"), "tcp, udp, icmp or -1")
    if protocol == "-1":
        return protocol, None, None
    for name in ("FromPort", "ToPort"):
        params.required(name)
    first, last = (params.number(name, -1, -1, 65535) for name in ("FromPort", "ToPort"))
    if protocol != "icmp" and not 0 <= first <= last:
        raise errors.invalid("FromPort", first, f"a port that is not after ToPort {last}")
    return protocol, first, last


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise errors.invalid("CidrIp", text, "a network like 10.0.0.0/8") from None


def _rule(key: RuleKey) -> Rule:
    protocol, first, last, cidr, source = key
    return Rule(protocol=protocol, from_port=first, to_port=last, cidr=cidr, source_group=source)


def _words(key: RuleKey) -> str:
    protocol, first, last, cidr, source = key
    return f"{protocol} {first}-{last} from {cidr or source}"


def _view(group: SecurityGroup, tagged: dict[str, str], numbers_by_name: dict[str, int]) -> Reply:
    return {
        "ownerId": group.project_id,
        "groupId": ids.of("sg", group.id),
        "groupName": group.name,
        "groupDescription": group.description,
        "ipPermissions": items(_permissions(group, numbers_by_name)),
        "ipPermissionsEgress": items([]),
        "tagSet": tag_set(tagged),
    }


def _permissions(group: SecurityGroup, numbers_by_name: dict[str, int]) -> list[dict[str, Any]]:
    """Rules of the same protocol and ports are one permission with several sources, as in EC2."""
    by_ports: dict[tuple[Any, ...], list[Rule]] = {}
    for rule in group.rules:
        by_ports.setdefault((rule.protocol, rule.from_port, rule.to_port), []).append(rule)
    return [
        {
            "ipProtocol": protocol,
            "fromPort": first,
            "toPort": last,
            "ipRanges": items([{"cidrIp": rule.cidr} for rule in rules if rule.cidr and ":" not in rule.cidr]),
            "ipv6Ranges": items([{"cidrIpv6": rule.cidr} for rule in rules if rule.cidr and ":" in rule.cidr]),
            "groups": items(
                [
                    {
                        "userId": group.project_id,
                        "groupName": rule.source_group,
                        "groupId": ids.of("sg", numbers_by_name[rule.source_group]),
                    }
                    for rule in rules
                    if rule.source_group in numbers_by_name
                ]
            ),
        }
        for (protocol, first, last), rules in by_ports.items()
    ]
