"""`novad init` from the files of other tools: what is carried over compiles, and what is not is said."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novad.client.carry import compose, process_compose, procfile, supervisor, yaml
from novad.client.carry.draft import Carried, settled, toml, value
from tests.system.client import Project, new_project

# A loaded machine is no fault.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PROCFILE = """
# the shop
web: gunicorn shop:app --bind 127.0.0.1:$PORT
worker: python worker.py --fast
release: ./migrate && echo done
what is this
"""

SUPERVISORD = """
[supervisord]
nodaemon=true
[program:web]
command=/usr/bin/python %(here)s/web.py --port=80%(process_num)02d ; a remark
directory=/tmp
environment=A="1",B="two, three",HOME="%(ENV_HOME)s",PRICE="${x}"
autorestart=true
numprocs=2
stopsignal=INT
stopwaitsecs=5
startretries=3
user=nobody
[program:once]
command=true
autostart=false
autorestart=false
[group:all-of-it]
programs=web,once
[eventlistener:memmon]
command=memmon
"""

COMPOSE = """
version: "3.8"
services:
  db:
    image: postgres:16
  api:
    build: .
    command: ["python", "-m", "api", "--level", "${LEVEL:-info}"]
    environment:
      DEBUG: true          # a boolean
      URL: postgres://$USER@db/$$shop
    ports:
      - "8000:80"
      - "127.0.0.1:9000:9000/tcp"
    depends_on:
      db:
        condition: service_healthy
      migrate: { condition: service_completed_successfully }
    healthcheck:
      test: ["CMD-SHELL", "curl -f http://localhost:8000/ || exit 1"]
    restart: unless-stopped
    stop_grace_period: 5s
    networks: [back]
  migrate:
    build: .
    command: >
      python manage.py
      migrate
    env_file:
    - .env
    - path: more.env
      required: false
  echo:
    build: .
    entrypoint: sh -c 'echo "a # b" && sleep 1'
networks:
  back: {}
"""

PROCESS_COMPOSE = """
version: "0.5"
environment:
  - "ALL=yes"
processes:
  db:
    command: |
      echo starting
      exec sleep 1000
    ready_log_line: starting
  web:
    command: python -m http.server 8080
    working_dir: /tmp
    depends_on:
      db:
        condition: process_log_ready
    readiness_probe:
      http_get:
        host: 127.0.0.1
        port: 8080
        path: "/health"
      period_seconds: 2
    availability:
      restart: "on_failure"
      max_restarts: 4
      backoff_seconds: 2
    shutdown:
      signal: 2
      timeout_seconds: 3
    log_location: ./web.log
  off:
    command: "true"
    disabled: true
    namespace: Tools
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with new_project(tmp_path) as made:
        yield made


def services(carried: Carried) -> dict[str, Any]:
    """As nova.toml, read back."""
    found: dict[str, Any] = tomllib.loads(toml(settled(carried)))["services"]
    return found


def test_a_procfile_keeps_the_shell_only_where_it_is_needed() -> None:
    carried = procfile.read(PROCFILE, [".env"])
    assert services(carried) == {
        "web": {
            "command": "gunicorn shop:app --bind 127.0.0.1:$PORT", "shell": True, "ports": {"http": "auto"},
            "env": {"PORT": "${port}"}, "env_files": [".env?"],
        },
        "worker": {"command": "python worker.py --fast", "env_files": [".env?"]},
        "release": {"command": "./migrate && echo done", "shell": True, "oneshot": True, "env_files": [".env?"]},
    }  # fmt: skip
    assert carried.remarks == ("line 6: what is this",)


def test_supervisors_programs_groups_and_expansions_are_carried() -> None:
    carried = supervisor.read(SUPERVISORD)
    assert services(carried) == {
        "web": {
            "command": "/usr/bin/python ${dir}/web.py --port=80${n}", "cwd": "/tmp",
            "env": {"A": "1", "B": "two, three", "HOME": "${env.HOME}", "PRICE": "$${x}"},
            "restart": "always", "replicas": 2, "stop": {"signal": "INT", "timeout": "5s"}, "give_up_after": 4,
            "groups": ["all-of-it"],
        },
        "once": {"command": "true", "autostart": False, "restart": "no", "groups": ["all-of-it"]},
    }  # fmt: skip
    assert carried.remarks == ("web: user = nobody", "[eventlistener:memmon]")


def test_of_a_compose_file_what_runs_on_a_host_is_carried() -> None:
    carried = settled(compose.read(COMPOSE))
    assert services(carried) == {
        "api": {
            "command": ["python", "-m", "api", "--level", "${env.LEVEL:-info}"],
            "env": {"DEBUG": "true", "URL": "postgres://${env.USER:-}@db/$shop"},
            "after": ["migrate:done"], "ports": {"http": 8000, "p9000": 9000},
            "ready": {"exec": ["sh", "-c", "curl -f http://localhost:8000/ || exit 1"]},
            "restart": "always", "stop": {"timeout": "5s"},
        },
        "migrate": {"command": "python manage.py migrate", "env_files": [".env", "more.env?"]},
        "echo": {"command": "sh -c 'echo \"a # b\" && sleep 1'", "shell": True},
    }  # fmt: skip
    assert carried.remarks == (
        "db: image postgres:16; run it yourself, or give it a command", "api: networks", "networks",
        "api: does not wait for db:ready, which is not here",
    )  # fmt: skip


def test_replicas_of_compose_get_ports_of_their_own() -> None:
    text = (
        "services:\n  web:\n    build: .\n    command: ./web\n    ports: ['8000:80']\n    deploy: {replicas: 2}\n"
    )
    assert services(compose.read(text))["web"] == {"command": "./web", "ports": {"http": "8000+"}, "replicas": 2}


def test_a_group_of_supervisor_that_is_called_as_everything_is_left_out() -> None:
    carried = supervisor.read("[program:web]\ncommand=web\n[group:all]\nprograms=web\n")
    assert "groups" not in services(carried)["web"]
    assert carried.remarks == ("[group:all]",)


def test_process_composes_processes_are_carried() -> None:
    carried = process_compose.read(PROCESS_COMPOSE)
    assert carried.env == {"ALL": "yes"}
    assert services(carried) == {
        "db": {"command": "echo starting\nexec sleep 1000", "shell": True, "ready": {"log": "starting"}},
        "web": {
            "command": "python -m http.server 8080", "cwd": "/tmp", "after": ["db:ready"],
            "ready": {"http": "http://127.0.0.1:8080/health"}, "restart": "on-failure", "give_up_after": 5,
            "backoff": {"min": "2s", "max": "2s"},
            "stop": {"signal": "INT", "timeout": "3s"},
        },
        "off": {"command": "true", "autostart": False, "groups": ["tools"]},
    }  # fmt: skip
    assert carried.remarks == ("web: log_location",)


@pytest.mark.parametrize(
    ("name", "text", "extra"),
    [
        ("Procfile", PROCFILE, []),
        ("supervisord.conf", SUPERVISORD, []),
        ("docker-compose.yml", COMPOSE, [".env"]),
        ("process-compose.yaml", PROCESS_COMPOSE, []),
    ],
)
def test_what_init_writes_has_no_faults_and_every_remark_is_told(
    project: Project, name: str, text: str, extra: list[str]
) -> None:
    project.write(text, name)
    for file in extra:
        project.write("", file)
    done = project.novad("init")
    assert done.returncode == 0, done.stderr
    assert f"from {name}" in done.stdout
    assert "not carried over: " in done.stderr
    checked = project.novad("check")
    assert checked.returncode == 0, checked.stderr


def test_the_scripts_of_a_python_project_are_proposed_and_started_when_named(project: Project) -> None:
    project.write(
        '[project.scripts]\nMyServe = "a:main"\n[tool.poetry.scripts]\nsleep = "b:c"\n', "pyproject.toml"
    )
    done = project.novad("init")
    assert "with 2 services from pyproject.toml" in done.stdout
    services = tomllib.loads((project.directory / "nova.toml").read_text())["services"]
    assert services["myserve"] == {"command": ["MyServe"], "autostart": False}
    assert project.novad("check").returncode == 0
    assert project.novad("up", "-d").returncode == 0
    assert {item["state"] for item in project.processes().values()} == {"stopped"}


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "project = 3\ntool = []\n"])
def test_a_python_project_without_scripts_gets_the_example(project: Project, text: str) -> None:
    project.write(text, "pyproject.toml")
    assert project.novad("init").stdout == "wrote nova.toml\n"


def test_a_procfile_runs_as_it_is(project: Project) -> None:
    project.write("web: echo port $PORT; exec sleep 1000\n", "Procfile")
    assert project.novad("init").returncode == 0
    assert project.novad("up", "-d").returncode == 0
    port = project.processes()["web"]["ports"]["http"]
    assert f"port {port}" in project.novad("logs", "web").stdout


def test_a_file_that_cannot_be_read_is_pointed_at_and_nothing_is_written(project: Project) -> None:
    project.write("services:\n  api: &anchor\n    command: x\n", "compose.yaml")
    done = project.novad("init")
    assert done.returncode == 1
    assert "compose.yaml: line 2: `&anchor`: anchors, aliases and tags are not read" in done.stderr
    assert not (project.directory / "nova.toml").exists()
    assert json.loads(project.novad("--json", "init", "--from", "none").stdout)["source"] is None


YAML = [
    ("a: 1\nb: [x, 'y, z', {k: v}]\n", {"a": 1, "b": ["x", "y, z", {"k": "v"}]}),
    ("- a\n-  b: 1\n   c: 2\n- - x\n  - y\n", ["a", {"b": 1, "c": 2}, ["x", "y"]]),
    ("a:\n- 1\n- 2\nb: ~\n", {"a": [1, 2], "b": None}),
    ("a: |\n  one\n   two\n\n  three\nb: >-\n  four\n  five\n", {"a": "one\n two\n\nthree\n", "b": "four five"}),
    ("a: http://x:1/#y # remark\n'b c': \"\\u00e4\"\n", {"a": "http://x:1/#y", "b c": "ä"}),
    ("a: one\n  two\nb: [1,\n  2]\n", {"a": "one two", "b": [1, 2]}),
    (
        "a: 'it''s'\nb: 1.5\nc: -3\nd: 0.5s\ne: \"80:80\"\n",
        {"a": "it's", "b": 1.5, "c": -3, "d": "0.5s", "e": "80:80"},
    ),
    ("# nothing\n", None),
    ("a: {}\nb: []\nc: { x: 1, y: [2] }\n", {"a": {}, "b": [], "c": {"x": 1, "y": [2]}}),
    ("---\na: True\n", {"a": True}),
]


@pytest.mark.parametrize(("text", "expected"), YAML)
def test_the_yaml_of_compose_files_is_read(text: str, expected: object) -> None:
    assert yaml.load(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: *b\n", 1), ("a: 1\n<<: x\n", 2), ("a: 1\n\tb: 2\n", 2), ("a: [1\n", 1), ("a: 1\na: 2\n", 2),
     ("a:\n  b: 1\n c: 2\n", 3), ("a: 1\n---\nb: 2\n", 2), ("a: !x y\n", 1), ('a: "x\n', 1)],
)  # fmt: skip
def test_yaml_that_is_not_read_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(yaml.CannotRead, match=f"^line {line}:"):
        yaml.load(text)


@RELAXED
@given(st.text(alphabet="ab:-[]{},'\"#|>& \n", max_size=60))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(yaml.CannotRead):
        yaml.load(text)


VALUES = st.recursive(
    st.one_of(st.text(), st.booleans(), st.integers(-(2**62), 2**62)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=6,
)


@RELAXED
@given(VALUES)
def test_a_value_is_written_so_that_toml_reads_the_same(item: object) -> None:
    assert tomllib.loads(f"key = {value(item)}")["key"] == item
