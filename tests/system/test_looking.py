"""`status --env`, `--timeline=html`, the remark about changed files, `up --watch` and `up --shuffle`."""

from __future__ import annotations

import json
import re
import xml.dom.minidom
from pathlib import Path

from tests.system.client import Project

ENVIRONMENT = """
[env]
COLOUR = "green"
API_TOKEN = "very-secret"
[services.api]
command = "sleep 1000"
env = { LEVEL = "info" }
"""


def test_each_variable_has_its_origin_and_its_drift(project: Project) -> None:
    project.write(ENVIRONMENT)
    assert project.novad("up", "-d").returncode == 0
    shown = project.novad("status", "--env", "api").stdout
    assert re.search(r"COLOUR +green +nova.toml:\d+", shown)
    assert "NOVAD_SERVICE" in shown
    assert "very-secret" not in shown
    assert "(hidden, 11 characters)" in shown
    assert "differ" not in shown
    project.write(ENVIRONMENT.replace('LEVEL = "info"', 'LEVEL = "debug"').replace('COLOUR = "green"\n', ""))
    told = json.loads(project.novad("--json", "status", "--env", "api").stdout)["environments"]["api"]
    drifts = {item["name"]: item["drift"] for item in told if item["drift"]}
    assert drifts == {"LEVEL": "now debug", "COLOUR": "not set any more"}
    assert "2 differ from the files: novad reload" in project.novad("status", "--env", "api").stdout


def test_the_environment_of_what_does_not_run_is_1_and_of_nobody_2(project: Project) -> None:
    project.write(ENVIRONMENT)
    assert project.novad("up", "-d").returncode == 0
    assert project.novad("stop", "api").returncode == 0
    assert project.novad("status", "--env", "api").returncode == 1
    assert project.novad("status", "--env").returncode == 2


def test_the_timeline_is_a_page_that_needs_nothing_else(project: Project) -> None:
    project.write(ENVIRONMENT + '[services.db]\ncommand = "true"\noneshot = true\n')
    assert project.novad("up", "-d").returncode == 0
    done = project.novad("status", "--timeline=html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!doctype html>")
    assert not re.search(r"https?://|<script|<link|<img", done.stdout)
    picture = done.stdout[done.stdout.index("<svg") : done.stdout.index("</svg>") + len("</svg>")]
    drawn = xml.dom.minidom.parseString(picture)
    titles = [item.firstChild.data for item in drawn.getElementsByTagName("title")]  # type: ignore[union-attr]
    assert any(title.startswith("api ready from ") for title in titles)
    assert any(title.startswith("db done from ") for title in titles)


def test_a_file_that_changed_is_remarked_until_it_is_reloaded(project: Project) -> None:
    project.write(ENVIRONMENT)
    assert project.novad("up", "-d").returncode == 0
    assert "changed since" not in project.novad("status").stdout
    project.write(ENVIRONMENT.replace("green", "blue"))
    assert "nova.toml changed since it was loaded: novad reload" in project.novad("status").stdout
    assert project.novad("reload", "-y").returncode == 0
    assert "changed since" not in project.novad("status").stdout
    project.write(ENVIRONMENT.replace("green", "blue") + "# a remark\n")
    assert project.novad("reload", "-y").returncode == 0
    assert "changed since" not in project.novad("status").stdout


def test_a_new_overlay_and_a_new_environment_file_are_remarked(project: Project) -> None:
    project.write('[novad]\nenv_files = ["extra.env?"]\n[services]\napi = "sleep 1000"\n')
    assert project.novad("up", "-d").returncode == 0
    assert "changed since" not in project.novad("status").stdout
    project.write("A=1\n", "extra.env")
    assert "extra.env changed since it was loaded: novad reload" in project.novad("status").stdout
    project.write("[env]\nB = '2'\n", "nova.local.toml")
    assert "nova.local.toml, extra.env changed since it was loaded" in project.novad("status").stdout
    assert project.novad("reload", "-y").returncode == 0
    assert "changed since" not in project.novad("status").stdout
    (project.directory / "nova.local.toml").unlink()
    assert "the configuration changed since it was loaded" in project.novad("status").stdout


def test_a_shuffled_start_has_the_same_order_for_the_same_seed(project: Project) -> None:
    names = [f"s{number}" for number in range(8)]
    project.write("[services]\n" + "".join(f'{name} = "sleep 1000"\n' for name in names))
    orders = []
    for seed in ("7", "7", "8"):
        up = project.novad("up", "-d", "--seed", seed)
        assert f"--seed {seed}" in up.stderr
        logs = project.novad("--json", "logs").stdout.splitlines()
        started = [item for item in map(json.loads, logs) if item["text"].startswith("started, pid")]
        orders.append([item["name"] for item in started][-len(names) :])
        assert project.novad("down").returncode == 0
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != names
    assert re.search(r"--seed \d+ gives the same", project.novad("up", "-d", "--shuffle").stderr)


def test_an_up_that_watches_restarts_what_changed_and_a_key_switches_it(project: Project, tmp_path: Path) -> None:
    project.write('[services.api]\ncommand = "sleep 1000"\nwatch = ["*.py"]\n')
    up = project.terminal("up", "--watch")
    up.expect("watching the files of api")
    up.expect("1/1 ready")
    project.write("a = 1\n", "app.py")
    up.expect("api restarting: .*app.py changed")
    project.until(lambda: project.processes()["api"]["state"] == "ready")
    up.send("w")
    up.expect("files are not watched any more")
    before = project.processes()["api"]["pid"]
    project.write("a = 2\n", "app.py")
    up.send("w")
    up.expect("watching the files of api")
    assert project.processes()["api"]["pid"] == before


def test_watching_without_globs_says_what_to_write(project: Project) -> None:
    project.write('[services]\nweb = "sleep 1000"\n')
    up = project.novad("up", "-d", "--watch")
    assert up.returncode == 0
    assert "nothing to watch" in up.stderr
