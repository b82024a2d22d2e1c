"""Prometheus's text format (exposition format 0.0.4), and what each of nova's numbers means.

Pure: samples in, text out. Whose numbers they are, the process's (`metrics`) or the broker's (`broker.report`), it
does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]

HELP = {
    "nova_calls_total": "Calls that ended, by method and outcome.",
    "nova_call_seconds_total": "Seconds that those calls took together.",
    "nova_inflight": "Calls that have begun and not ended, by kind.",
    "nova_ready": "1 while the service is ready.",
    "nova_hub_lag_seconds": "The longest turn of the hub in the last 10 to 20 seconds.",
    "nova_greenlets": "Greenlets that wait for something.",
    "nova_log_dropped_total": "Log lines dropped because nobody read them.",
    "nova_shed_total": "Clients answered 503 because descriptors ran out.",
    "nova_periodic_failures_total": "Runs of periodic tasks that raised.",
    "process_start_time_seconds": "When the process began, in seconds since 1970.",
    "process_resident_memory_bytes": "Resident memory.",
    "process_open_fds": "Open file descriptors.",
    "process_cpu_seconds_total": "User and system time.",
    "nova_broker_queue_ready": "Messages in the queue that wait for a consumer.",
    "nova_broker_queue_unacked": "Messages of the queue that a consumer has not acknowledged.",
    "nova_broker_queue_consumers": "Consumers of the queue.",
    "nova_broker_queue_published_total": "Messages that came into the queue.",
    "nova_broker_queue_delivered_total": "Messages that the queue handed out.",
    "nova_broker_queue_acked_total": "Messages of the queue that were settled.",
    "nova_broker_queue_redelivered_total": "Messages that the queue handed out again.",
    "nova_broker_exchange_bindings": "Bindings that lead from the exchange.",
    "nova_broker_exchange_published_total": "Messages published to the exchange.",
    "nova_broker_connections": "Connections of clients.",
    "nova_broker_memory_bytes": "Memory that messages take.",
    "nova_broker_memory_limit_bytes": "Memory of messages above which publishers are held.",
    "nova_broker_journal_bytes": "Size of the messages' files.",
    "nova_broker_journal_limit_bytes": "Size of the files above which persistent messages are refused.",
    "nova_broker_blocked": "1 while publishers are held.",
}


def text(samples: Iterable[Sample]) -> str:
    """The samples, families together, each with its help and type."""
    families: dict[str, list[str]] = {}
    for name, labels, value in samples:
        families.setdefault(name, []).append(f"{name}{_labels(labels)} {value:.12g}")
    lines = []
    for name, rows in families.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {HELP.get(name, name)}", f"# TYPE {name} {kind}", *rows]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: Any) -> str:
    return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
