"""From nova.toml to the cluster: what each key becomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from novad.core import spec
from tests.novad.config.compiling import compiled, faults, process, refusal

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


KEYS = [
    ("", "restart", "on-failure"),
    ("oneshot = true", "restart", "no"),
    ('oneshot = true\nrestart = "on-failure"', "restart", "on-failure"),
    ('restart = "always"', "restart", "always"),
    ("autostart = false", "autostart", False),
    ("ready_timeout = 90", "ready_timeout_s", 90.0),
    ('ready_timeout = "1.5m"', "ready_timeout_s", 90.0),
    ('ready_after = "250ms"', "start_s", 0.25),
    ("give_up_after = 2", "give_up_after", 2),
    ('backoff = { reset_after = "0s" }', "backoff", spec.Backoff(reset_after_s=0.0)),
    ('stop = { signal = "sigint" }', "stop", spec.Stop("INT", 10.0)),
    ('signals.reload = "USR2"', "reload_signal", "USR2"),
    ('watchdog = "3s"', "watchdog_s", 3.0),
    ("nice = -5", "nice", -5),
    ('cwd = "src"', "cwd", "DIR/src"),
    ('cwd = "${run_dir}/later"', "cwd", "/run/novad/abc/later"),
    ("", "cwd", "DIR"),
    ('description = "of ${name}"', "description", "of api"),
    ('groups = ["a", "b"]', "groups", ("a", "b")),
    ('restart_with = ["broker"]', "restart_with", ("broker",)),
    ('limits = { nofile = 10, core = "1MiB" }', "limits", {"nofile": 10, "core": 2**20}),
    ("watch = []", "watch", None),
    ('after = ["broker"]', "after", (spec.Dependency("broker", "started"),)),
    ('after = ["once", "probed"]', "after", (spec.Dependency("once", "done"), spec.Dependency("probed", "ready"))),
    ('after = ["many"]', "after", (spec.Dependency("many", "started"),)),
    ('after = ["many.2:ready"]', "after", (spec.Dependency("many.2", "ready"),)),
    ('after = ["none"]', "after", ()),
    ("ready = { notify_fd = 3 }", "ready", spec.Probe(notify_fd=3)),
    ('ready = { tcp = 99 }', "ready", spec.Probe(tcp=spec.TcpProbe("127.0.0.1", 99))),
    ('ready = { tcp = "[::1]:99" }', "ready", spec.Probe(tcp=spec.TcpProbe("::1", 99))),
    ('ready = { tcp = "db.local:99" }', "ready", spec.Probe(tcp=spec.TcpProbe("db.local", 99))),
    ('ready = { exec = "./check -x" }', "ready", spec.Probe(exec=("DIR/check", "-x"))),
    ('ports.p = 80\nready = { http = "/" }', "ready", spec.Probe(http=spec.HttpProbe("http://127.0.0.1:80/"))),
    ('ports.p = 80\nready = { http = "p" }', "ready", spec.Probe(http=spec.HttpProbe("http://127.0.0.1:80/"))),
    ('ports.p = 80\nready = { http = "p/x" }', "ready", spec.Probe(http=spec.HttpProbe("http://127.0.0.1:80/x"))),
    ('ready = { http = "http://h/", status = 204 }', "ready", spec.Probe(http=spec.HttpProbe("http://h/", 204, 204))),
    ("ports.p = 80\nlisten = true", "ports", {"p": spec.Port(80, fixed=True, listen=True)}),
    ("ports.http = 80", "url", "http://127.0.0.1:80/"),
    ("ports.amqp = 80", "url", None),
    ("pty = true\nlogs = { max = 5000, keep = 1, attach = false, drop = true }", "log",
     spec.Log("/state/logs/api.log", 5000, 1, attach=False, drop=True, pty=True)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "field", "expected"), KEYS)
def test_a_key_becomes(text: str, field: str, expected: object, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    others = """
    [services]
    broker = "b"
    once = { command = "o", oneshot = true }
    probed = { command = "p", ready = { notify = true } }
    many = { command = "m", replicas = 2 }
    none = { command = "n", replicas = 0 }
    [services.api]
    command = "api"
    """
    made = getattr(process(compiled(tmp_path, others + text), "api"), field)
    assert _placed(made, str(tmp_path)) == expected


def _placed(value: object, folder: str) -> object:
    """The value with DIR for the project's directory."""
    if isinstance(value, str):
        return value.replace(folder, "DIR")
    if isinstance(value, spec.Probe) and value.exec:
        return spec.Probe(exec=tuple(word.replace(folder, "DIR") for word in value.exec))
    return value


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("\"x 'a b' c\\\\ d\"", ("x", "a b", "c d")),
        ('["x", "a b"]', ("x", "a b")),
        ('"bin/x"', ("DIR/bin/x",)),
        ('"../x"', ("UP/x",)),
        ('"/usr/bin/x ./y"', ("/usr/bin/x", "./y")),
        ('"x ${env.HOME} ${env.NO:-a b}"', ("x", "/home/dev", "a b")),
        ('"x | y > $Z"', ("x", "|", "y", ">", "$Z")),
    ],
)
def test_a_command_becomes_arguments_without_a_shell(command: str, argv: tuple[str, ...], tmp_path: Path) -> None:
    made = process(compiled(tmp_path, f"[services]\na = {{ command = {command} }}"), "a").argv
    places = {"DIR": str(tmp_path), "UP": str(tmp_path.parent)}
    expected = []
    for word in argv:
        for name, place in places.items():
            word = word.replace(name, place)
        expected.append(word)
    assert made == tuple(expected)


def test_the_argv_of_a_function_runs_it(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text("import sys\ndef main():\n    print(sys.argv[1:])\n    return 7\n")
    text = '[services.a]\npython = "greeting:main"\nargs = ["x", "y z"]'
    argv = process(compiled(tmp_path, text, python=sys.executable), "a").argv
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("['x', 'y z']\n", 7)


def test_the_digest_follows_the_files_and_the_options_but_not_the_shell(tmp_path: Path) -> None:
    text = '[novad]\nenv_files = [".env"]\n[services]\na = "a"'
    first = compiled(tmp_path, text, {".env": "A=1"})
    assert compiled(tmp_path, text, {".env": "A=1"}, environ={"B": "1"}).digest == first.digest
    others = [
        compiled(tmp_path, text, {".env": "A=2"}),
        compiled(tmp_path, text + "\n", {".env": "A=1"}),
        compiled(tmp_path, text, {".env": "A=1"}, overrides={"A": "1"}),
        compiled(tmp_path, text, {".env": "A=1"}, scale={"a": 1}),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": {"a": -1}}, "--scale a=-1: expected a number from 0 to 1000"),
        ({"overrides": {"NOVAD_X": "1"}}, "-e NOVAD_X: it is set by novad"),
        ({"overrides": {"A=B": "1"}}, "-e A=B: not an environment variable"),
        ({"profile": "ci"}, "there is no profile `ci`"),
    ],
)
def test_a_wrong_option_is_reported_like_a_wrong_key(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    assert faults(tmp_path, '[services]\na = "a"', **changes) == [message]


def test_files_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = '[novad]\nenv_files = ["pipe", "/dev/zero", "."]\n[services]\na = "a"'
    assert faults(tmp_path, text) == [
        "cannot read pipe: it is not a file",
        "cannot read /dev/zero: it is not a file",
        "cannot read .: it is not a file",
    ]


def test_a_missing_nova_toml_is_reported(tmp_path: Path) -> None:
    report = refusal(str(tmp_path / "nova.toml"))
    assert report is not None
    assert [fault.message for fault in report.faults] == ["cannot read nova.toml: no such file or directory"]


def test_an_unprintable_byte_in_the_shell_s_environment_passes_through(tmp_path: Path) -> None:
    shell = {"ODD": "a\udcffb"}
    cluster = compiled(tmp_path, '[services]\na = "a ${env.ODD}"', environ=shell)
    assert process(cluster, "a").argv == ("a", "a\udcffb")
    assert spec.cluster_from_json(json.loads(json.dumps(spec.to_json(cluster)))) == cluster
