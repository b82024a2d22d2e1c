"""What a service on the web does without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from nova import green
green.patch()
import http.client, sys
from nova.testing import service_runner
from nova.webservice import WSGIService

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

with service_runner(WSGIService("plain", application)) as (service,):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("GET", "/")
    print(connection.getresponse().read().decode())
    connection.close()
print(service.manager, *sorted(sys.modules))
"""


def test_a_web_service_needs_neither_queue_nor_database_nor_manager(tmp_path: Path) -> None:
    services = Path(__file__).parents[2] / "services"
    env = {
        **os.environ,
        "PYTHONPATH": str(services),
        "PYTHONWARNINGS": "ignore",
        "NOVA_STATE_PATH": str(tmp_path),
    }
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    body, loaded = ran.stdout.splitlines()
    assert body == "hello"
    manager, *modules = loaded.split()
    assert manager == "None"
    assert "nova.webservice" in modules
    assert not {"nova.rpc", "nova.db.session", "nova.service", "amqp", "kombu", "sqlalchemy"} & set(modules)
    assert list(tmp_path.iterdir()) == []
