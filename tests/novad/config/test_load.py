"""From nova.toml to the cluster: what each key becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from novad.core import spec
from tests.novad.config.compiling import compiled, process

THREE_LINES = """
[services]
web    = "python -m http.server ${port}"
worker = "python worker.py"
"""


def test_three_lines_make_a_cluster(tmp_path: Path) -> None:
    cluster = compiled(tmp_path, THREE_LINES)
    web, worker = cluster.processes
    number = web.ports["port"].number
    assert web.argv == ("python", "-m", "http.server", str(number))
    assert web.url == f"http://127.0.0.1:{number}/"
    assert not web.ports["port"].fixed
    assert (worker.argv, worker.ports, worker.url) == (("python", "worker.py"), {}, None)
    assert worker.log == spec.Log("/state/logs/worker.log")
    assert (cluster.project, cluster.dir) == (tmp_path.name, str(tmp_path))
    assert cluster.files == (str(tmp_path / "nova.toml"),)


@pytest.fixture
def cluster(tmp_path: Path) -> spec.Cluster:
    text = (Path(__file__).parent / "good" / "cluster.toml").read_text()
    return compiled(tmp_path, text)


def test_a_nova_cluster_compiles_to_what_it_says(cluster: spec.Cluster) -> None:
    api = process(cluster, "api")
    assert api.argv == ("nova-api", "--port", "8774")
    assert api.after == (
        spec.Dependency("broker", "ready"),
        spec.Dependency("db-sync", "done"),
        spec.Dependency("scheduler", "started"),
    )
    assert api.ready == spec.Probe(http=spec.HttpProbe("http://127.0.0.1:8774/healthz", 200, 299))
    assert api.health == spec.Health(
        spec.Probe(http=spec.HttpProbe("http://127.0.0.1:8774/healthz")), 5.0, 0.5, 2
    )
    assert api.ports["http"] == spec.Port(8774, fixed=True, listen=True)
    assert not api.ports["metadata"].listen
    assert api.limits == {"nofile": 4096, "core": -1, "as": 2 * 1024**3}
    assert api.watch == spec.Watch(("nova/api/**/*.py", "etc/api-paste.ini"))
    assert api.env["NOVA_BROKER"] == "amqp://guest:guest@127.0.0.1:5672/default"
    assert api.backoff == spec.Backoff(0.5, 30.0, 60.0)
    assert api.groups == ("control",)


def test_replicas_have_a_number_a_name_and_ports_of_their_own(cluster: spec.Cluster) -> None:
    replicas = [process for process in cluster.processes if process.service == "compute"]
    assert [replica.name for replica in replicas] == ["compute.1", "compute.2", "compute.3"]
    assert [replica.argv[-1] for replica in replicas] == ["node1", "node2", "node3"]
    assert [replica.ports["console"].number for replica in replicas] == [6080, 6081, 6082]
    assert replicas[1].env["NOVA_STATE"] == "/run/novad/abc/compute.2"
    assert replicas[1].ready == spec.Probe(
        tcp=spec.TcpProbe("127.0.0.1", 6081), log="Compute_service record (created|updated)"
    )


def test_a_python_service_has_an_equivalent_command(cluster: spec.Cluster) -> None:
    network, volume = process(cluster, "network"), process(cluster, "volume")
    assert network.argv == ("/venv/bin/python", "-m", "nova", "nova-network", "--state", "/run/novad/abc")
    assert network.python == spec.Python("nova", ("nova-network", "--state", "/run/novad/abc"))
    assert network.reload_signal == "USR1"
    assert volume.argv[:2] == ("/venv/bin/python", "-c")
    assert volume.python is None  # preload = false
    assert (volume.stop, volume.nice) == (spec.Stop("INT", 30.0), 5)


def test_a_compiled_cluster_survives_the_wire(cluster: spec.Cluster) -> None:
    assert spec.cluster_from_json(spec.to_json(cluster)) == cluster
