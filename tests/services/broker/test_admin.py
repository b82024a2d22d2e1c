"""What a broker says about itself, over its socket and inside an eventlet hub."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
import pytest
from nova import exposition
from nova.broker import admin, report

Start = Callable[..., Any]
SERVICES = Path(__file__).parents[3] / "services"


def test_queues_connections_exchanges_bindings_and_consumers_are_listed(start_broker: Start) -> None:
    broker = start_broker()
    connection = broker.connect(client_properties={"connection_name": "test"})
    channel = connection.channel()
    channel.exchange_declare("nova", "topic", durable=True, auto_delete=False)
    channel.queue_declare("compute", durable=True, auto_delete=False, arguments={"x-expires": 60000})
    channel.queue_bind("compute", "nova", "compute.*")
    for _ in range(3):
        channel.basic_publish(amqp.Message("x"), "nova", "compute.a")
    assert channel.basic_get("compute") is not None
    tag = channel.basic_consume("compute", no_ack=True)

    (queue,) = admin.ask(broker.folder, "queues")
    assert (queue["name"], queue["durable"], queue["arguments"]) == ("compute", True, {"x-expires": 60000})
    assert (queue["ready"], queue["unacked"], queue["consumers"]) == (0, 1, 1)
    assert (queue["published"], queue["delivered"], queue["acked"]) == (3, 3, 2)
    (client,) = admin.ask(broker.folder, "connections")
    assert (client["user"], client["name"], client["channels"], client["state"]) == ("nova", "test", 1, "running")
    (exchange,) = [row for row in admin.ask(broker.folder, "exchanges") if row["name"] == "nova"]
    assert (exchange["type"], exchange["published"], exchange["bindings"]) == ("topic", 3, 1)
    (binding,) = admin.ask(broker.folder, "bindings")
    assert (binding["source"], binding["destination"], binding["routing_key"]) == ("nova", "compute", "compute.*")
    (consumer,) = admin.ask(broker.folder, "consumers")
    assert (consumer["tag"], consumer["no_ack"]) == (tag, True)
    (overview,) = admin.ask(broker.folder, "overview")
    assert (overview["queues"], overview["connections"], overview["unacked"]) == (1, 1, 1)
    assert overview["memory_bytes"] > 0


def test_the_same_figures_are_metrics_for_a_scraper(start_broker: Start) -> None:
    broker = start_broker()
    connection = broker.connect()
    channel = connection.channel()
    channel.queue_declare('odd "name"', durable=True, auto_delete=False)
    for _ in range(3):
        channel.basic_publish(amqp.Message("x", delivery_mode=2), "", 'odd "name"')
    assert channel.basic_get('odd "name"') is not None
    head, body = scrape(broker.folder, "/metrics")
    assert head.startswith("HTTP/1.1 200 OK")
    labels = 'vhost="/",queue="odd \\"name\\""'
    lines = body.splitlines()
    assert f"nova_broker_queue_ready{{{labels}}} 2" in lines
    assert f"nova_broker_queue_unacked{{{labels}}} 1" in lines
    assert f"nova_broker_queue_published_total{{{labels}}} 3" in lines
    assert "# TYPE nova_broker_queue_published_total counter" in lines
    assert "nova_broker_connections 1" in lines
    assert "nova_broker_blocked 0" in lines
    assert scrape(broker.folder, "/secrets")[0].startswith("HTTP/1.1 404")


def scrape(folder: Path, path: str) -> tuple[str, str]:
    """Head and body of the answer to a GET."""
    with admin._connect(folder / "broker") as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode())
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head
    return head, body


def test_every_metric_has_a_help(start_broker: Start) -> None:
    names = {
        line.split()[2] for line in scrape(start_broker().folder, "/metrics")[1].splitlines() if "HELP" in line
    }
    assert names <= set(exposition.HELP)
    assert {name for name in exposition.HELP if name.startswith("nova_broker_exchange")} <= names


def test_rates_are_differences_over_time() -> None:
    earlier = [{"vhost": "/", "name": "a", "published": 10, "delivered": 0, "acked": 5, "redelivered": 0}]
    later = [dict(earlier[0], published=30), dict(earlier[0], name="b", published=4)]
    first, second = report.rates(earlier, later, 2.0)
    assert (first["published_per_s"], first["acked_per_s"], second["published_per_s"]) == (10.0, 0.0, 2.0)


def test_the_socket_is_for_the_owner_alone_and_answers_nonsense_with_an_error(start_broker: Start) -> None:
    broker = start_broker()
    path = broker.folder / "broker" / admin.SOCKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with admin._connect(path.parent) as link:
        for line in (b"nonsense", b"[]", b'{"list": "secrets"}', b'{"list": {}}'):
            link.sendall(line + b"\n")
            assert "error" in json.loads(link.recv(4096))
        link.sendall(b"x" * 70000)
        assert b"at most" in link.recv(4096)
    with pytest.raises(admin.AdminError, match="cannot list 'secrets'"):
        admin.ask(broker.folder, "secrets")


def test_a_broker_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(admin.AdminError, match=r"is nova-broker running\?"):
        admin.ask(tmp_path, "queues")


EMBEDDED = """
from nova import green
green.patch()
import sys
import amqp
from nova.broker import server
made = server.embedded(["--port=0", "--state_path=" + sys.argv[1]])
made.start()
password = made.broker.users["nova"]
connection = amqp.Connection(f"127.0.0.1:{made.port}", "nova", password)
connection.connect()
channel = connection.channel()
channel.queue_declare("inside", durable=True, auto_delete=False)
channel.confirm_select()
channel.basic_publish_confirm(amqp.Message("kept", delivery_mode=2), "", "inside")
assert channel.basic_get("inside").body == "kept"
stopper = green.spawn(made.stop)
try:
    connection.drain_events(timeout=10)
except amqp.ConnectionForced as error:
    print(error.reply_text)
stopper.wait()
"""


def test_the_broker_runs_in_an_eventlet_hub_beside_its_clients(tmp_path: Path, start_broker: Start) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(tmp_path / "state")],
        env={"PYTHONPATH": str(SERVICES), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert "CONNECTION_FORCED" in done.stdout
    channel = start_broker(folder=tmp_path / "state").connect().channel()
    assert channel.basic_get("inside", no_ack=True).body == "kept"


def test_the_process_needs_no_eventlet() -> None:
    code = "import sys, nova.broker.main; print([m for m in ('eventlet', 'kombu', 'amqp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SERVICES)}, capture_output=True)
    assert done.stdout == b"[]\n"
