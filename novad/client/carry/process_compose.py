"""A process-compose.yaml: its processes. Pure; f1bonacc1.github.io/process-compose."""

from __future__ import annotations

from typing import Any

from novad.client.carry import yaml
from novad.client.carry.draft import Carried, Draft, command_keys, environment, literal, service_name

CONDITIONS = {"process_started": ":started", "process_healthy": ":ready", "process_completed": ":done",
              "process_completed_successfully": ":done", "process_log_ready": ":ready"}  # fmt: skip
RESTART = {"always": "always", "on_failure": "on-failure", "exit_on_failure": "no", "no": "no"}
SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 10: "USR1", 12: "USR2", 15: "TERM"}
CARRIED = {"command", "working_dir", "environment", "depends_on", "readiness_probe", "ready_log_line", "availability",
           "replicas", "disabled", "shutdown", "namespace", "description", "is_tty"}  # fmt: skip


def read(text: str) -> Carried:
    """The services. Raises `yaml.CannotRead`."""
    document = yaml.load(text)
    table = document.get("processes") if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise yaml.CannotRead(1, "there are no `processes`")
    services, remarks = [], []
    for name, item in table.items():
        item = item if isinstance(item, dict) else {}
        services.append(Draft(service_name(name), _keys(item)))
        remarks += [f"{name}: {key}" for key in item if key not in CARRIED]
        remarks += [f"{name}: shutdown.command"] if (item.get("shutdown") or {}).get("command") else []
    remarks += [key for key in document if key not in ("processes", "version", "environment")]
    env = environment(document.get("environment"))
    return Carried("process-compose.yaml", tuple(services), env, tuple(remarks))


def _keys(item: dict[str, Any]) -> dict[str, Any]:
    keys = command_keys(str(item.get("command") or "true"))
    for theirs, ours in (("description", "description"), ("working_dir", "cwd")):
        keys |= {ours: literal(str(item[theirs]))} if item.get(theirs) else {}
    keys |= {"env": environment(item["environment"])} if item.get("environment") else {}
    after = [
        service_name(name) + CONDITIONS.get((how or {}).get("condition", ""), ":started")
        for name, how in (item.get("depends_on") or {}).items()
    ]
    keys |= {"after": after} if after else {}
    keys |= _ready(item)
    availability = item.get("availability") or {}
    keys |= {"restart": RESTART.get(str(availability["restart"]), "no")} if availability.get("restart") else {}
    keys |= {"give_up_after": int(availability["max_restarts"]) + 1} if availability.get("max_restarts") else {}
    if availability.get("backoff_seconds"):
        # There every pause is as long as the first.
        keys |= {"backoff": dict.fromkeys(("min", "max"), f"{availability['backoff_seconds']}s")}
    keys |= {"replicas": int(item["replicas"])} if int(item.get("replicas") or 1) > 1 else {}
    keys |= {"autostart": False} if item.get("disabled") else {}
    keys |= {"pty": True} if item.get("is_tty") else {}
    shutdown = item.get("shutdown") or {}
    stop = {"signal": SIGNALS[shutdown["signal"]]} if shutdown.get("signal") in SIGNALS else {}
    stop |= {"timeout": f"{shutdown['timeout_seconds']}s"} if shutdown.get("timeout_seconds") else {}
    keys |= {"stop": stop} if stop else {}
    return keys | ({"groups": [service_name(str(item["namespace"]))]} if item.get("namespace") else {})


def _ready(item: dict[str, Any]) -> dict[str, Any]:
    probe = item.get("readiness_probe") or {}
    if http := probe.get("http_get"):
        address = f"{http.get('scheme', 'http')}://{http.get('host', '127.0.0.1')}:{http.get('port', 80)}"
        return {"ready": {"http": address + str(http.get("path", "/"))}}
    if command := (probe.get("exec") or {}).get("command"):
        return {"ready": {"exec": ["sh", "-c", literal(str(command))]}}
    return {"ready": {"log": literal(str(item["ready_log_line"]))}} if item.get("ready_log_line") else {}
