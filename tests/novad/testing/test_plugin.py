"""The pytest plugin, in pytest runs of its own against real clusters."""

from __future__ import annotations

import os
import re
import select
import signal
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.novad.testing.running import Site, pytest_argv

# web echoes into its log what is written into its FIFO, and ends when told to.
CLUSTER = '''
[novad]
call = ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
[services.web]
command = ["sh", "-c", """
    rm -f $PIPE; mkfifo $PIPE; echo listening
    while read l <>$PIPE; do echo got $l; [ $l != die ] || exit 3; done
"""]
env = { PIPE = "${run_dir}/pipe" }
ports = { http = 8774, admin = 8775 }
ready = { log = "listening" }
[services.db]
command = ["sleep", "1000"]
replicas = 2
[groups]
all-of-it = ["web", "db"]
'''
TELL = """
import os
import pytest

def tell(nova, word):
    with open(os.path.dirname(nova.socket) + "/pipe", "w") as pipe:
        pipe.write(word + "\\n")
"""
HANDLE = """
def test_look(nova):
    assert nova.state("web") == "ready"
    assert set(nova.status()) == {"web", "db.1", "db.2"}
    assert nova.names("all-of-it") == ["web", "db.1", "db.2"]
    assert nova.url("web") == f"http://127.0.0.1:{nova.port('web.http')}/"
    assert nova.port("web", "admin") not in (8774, 8775, nova.port("web"))
    assert nova.env()["WEB_PORT_ADMIN"] == str(nova.port("web", "admin"))
    assert nova.call("topic", "method", spec={"vcpus": 2}) == ["topic", "method", 'spec:={"vcpus": 2}']

def test_logs_begin_with_the_test(nova, nova_log_mark):
    tell(nova, "one")
    assert nova.logs("web").wait_for("got (one)") == "got one"
    assert nova.logs("web").text() == "got one"
    nova_log_mark.set()
    tell(nova, "two")
    nova.logs("web").wait_for("two")
    assert [line[30:] for line in nova_log_mark.lines("web")] == ["got two"]
    with pytest.raises(TimeoutError, match="web is ready"):
        nova.logs("web").wait_for("never", timeout=0.2)

def test_chaos_is_no_crash_and_is_undone(nova, nova_chaos):
    before = nova.status("db.2")["pid"]
    nova_chaos.kill("db.2")
    nova.wait("db.2", "ready", timeout=20)
    assert nova.status("db.2")["pid"] != before
    nova_chaos.pause("web")
    nova_chaos.fill_log("web")
    nova_chaos.stop("db.1")
    assert nova.state("db.1") == "stopped"

def test_after_chaos(nova):
    assert {row["state"] for row in nova.status().values()} == {"ready"}
    tell(nova, "awake")
    nova.logs("web").wait_for("awake")

def test_a_log_that_is_full_loses_what_is_said(nova, nova_chaos):
    nova_chaos.fill_log("db.1")
    nova.restart("db.1")
    nova_chaos.clear_log("db.1")
    nova.logs("db.1").wait_for("lines lost: .*No space left")
    assert "started, pid" not in nova.logs("db.1").text()
    with pytest.raises(Exception, match="db.1 has no port"):
        nova_chaos.drop_port("db")

@pytest.mark.novad_allow_crash("web")
def test_allowed(nova):
    tell(nova, "die")
    nova.logs("web").wait_for("listening")

def test_a_child_by_fork_is_no_owner(nova):
    child = os.fork()
    if child == 0:
        os.execvp("sleep", ["sleep", "0"])
    assert os.waitpid(child, 0)[1] == 0
    child = os.fork()
    if child == 0:
        kept = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if int(name) > 2
                and os.path.exists(f"/proc/self/fd/{name}")}
        os._exit(1 if any(path.endswith("/guardian") for path in kept) else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert nova.state("web") == "ready"

def test_unready(nova):
    nova.stop("web")
    with pytest.raises(Exception, match="web will not be ready"):
        nova.wait("web", "ready", timeout=5)
    nova.start("web")

def test_factory(nova, nova_factory):
    other = nova_factory(services=["db"])
    assert other.namespace != nova.namespace
    assert other.status("db.1")["pid"] != nova.status("db.1")["pid"]
    assert other.state("web") == "stopped"
"""


def test_what_a_test_can_do_with_its_cluster(site: Site) -> None:
    site.write(CLUSTER)
    site.write(TELL + HANDLE, "test_it.py")
    code, out, err = site.pytest("-q")
    assert code == 0, out + err
    assert "9 passed" in out
    assert site.left_after(2) == []
    assert [path.name for path in (site.folder / ".novad").iterdir()] == [".gitignore"]


CRASHING = """
def test_before(nova):
    tell(nova, "calm")
    nova.logs("web").wait_for("calm")

def test_crash(nova):
    tell(nova, "die")
    nova.logs("web").wait_for("listening")

def test_fails(nova):
    tell(nova, "word-of-this-test")
    nova.logs("web").wait_for("word-of")
    assert False, "own reason"

def test_after(nova):
    assert nova.state("web") == "ready"
"""


def test_a_crash_fails_the_test_in_which_it_happened(site: Site) -> None:
    site.write(CLUSTER)
    site.write(TELL + CRASHING, "test_it.py")
    code, out, err = site.pytest("-q", "--junitxml=out.xml", "-o", "junit_logging=all", "--novad-report=kept")
    assert code == 1, out + err
    assert "2 failed, 2 passed" in out
    crash, failure = out.split("test_crash")[1].split("test_fails")[0], out.split("_ test_fails _")[1]
    assert "web crashed, and nobody asked for it" in crash
    assert "exit code 3" in crash
    assert "got die" in crash
    captured = failure.split("Captured log of service web")[1].split("short test summary")[0]
    assert "word-of-this-test" in captured
    assert "got die" not in captured
    cases = {case.get("name"): case for case in ElementTree.parse(site.folder / "out.xml").iter("testcase")}
    properties = {item.get("name"): item.get("value") or "" for item in cases["test_fails"].iter("property")}
    assert "word-of-this-test" in properties["novad.log.web"]
    assert "word-of-this-test" in "".join(item.text or "" for item in cases["test_fails"].iter("system-out"))
    assert list(cases["test_after"].iter("property")) == []
    (kept,) = (site.folder / "kept").iterdir()
    assert "word-of-this-test" in (kept / "web.log").read_text()
    assert site.left_after(2) == []


def test_a_crash_while_it_starts_fails_at_once_and_only_once(site: Site) -> None:
    slow = 'backoff = { min = "30s", max = "30s" }\n'
    site.write('[services.web]\ncommand = ["sh", "-c", "echo bad luck >&2; exit 9"]\n' + slow)
    site.write("def test_one(nova): pass\ndef test_two(nova): pass\ndef test_three(): pass\n", "test_it.py")
    code, out, err = site.pytest("-q")
    assert code == 1, out + err
    assert "1 passed, 2 errors" in out
    assert "bad luck" in out
    assert "did not come up before" in out
    assert "During handling" not in out
    assert site.left_after(2) == []


MARKED = """
import pytest

seen = []

def test_default(nova):
    seen.append(nova.namespace)

@pytest.mark.novad(services=["db"])
def test_other(nova):
    assert nova.state("web") == "stopped"
    seen.append(nova.namespace)

@pytest.mark.novad(fresh=True)
def test_fresh(nova):
    seen.append(nova.namespace)

def test_each_has_its_own(nova):
    assert nova.namespace == seen[0]
    assert len(set(seen)) == 3
"""


def test_markers_choose_the_cluster(site: Site) -> None:
    site.write(CLUSTER)
    site.write(MARKED, "test_it.py")
    code, out, err = site.pytest("-q")
    assert code == 0, out + err
    assert site.left_after(2) == []


WHERE = """
import os
import pytest

@pytest.mark.parametrize("n", range(8))
def test_where(nova, n):
    with open("where", "a") as file:
        worker = os.environ["PYTEST_XDIST_WORKER"]
        file.write(f"{worker} {nova.namespace} {nova.port('web')} {nova.state('web')}\\n")
"""


@pytest.mark.parametrize(("mode", "clusters"), [("shared", 1), ("worker", 2)])
def test_workers_share_a_cluster_or_have_their_own(site: Site, mode: str, clusters: int) -> None:
    site.write(CLUSTER)
    site.write(WHERE, "test_it.py")
    code, out, err = site.pytest("-q", "-n", "2", f"--novad={mode}")
    assert code == 0, out + err
    rows = [line.split() for line in (site.folder / "where").read_text().splitlines()]
    assert len(rows) == 8
    assert {row[3] for row in rows} == {"ready"}
    workers = {row[0] for row in rows}
    assert len({row[1] for row in rows}) == min(clusters, len(workers))
    assert len({row[2] for row in rows}) == min(clusters, len(workers))
    assert site.left_after(2) == []


def test_inside_run_the_tests_use_its_cluster(site: Site) -> None:
    site.write(CLUSTER)
    chaos = "def test_kill(nova, nova_chaos):\n    nova_chaos.kill('db.1')\n    print(nova.namespace)\n"
    site.write(chaos, "test_it.py")
    code, out, err = site.run("--", *pytest_argv("-q", "-s"))
    assert code == 0, out + err
    assert re.search(r"^run-", out, re.M), out
    assert site.left_after(2) == []


def test_off_skips(site: Site) -> None:
    site.write(CLUSTER)
    site.write("def test_one(nova): pass\ndef test_two(): pass\n", "test_it.py")
    assert "1 passed, 1 skipped" in site.pytest("-q", "--novad=off")[1]
    assert not (site.folder / ".novad").exists()


def test_a_skipped_test_starts_no_cluster(site: Site) -> None:
    site.write(CLUSTER)
    site.write("import pytest\n@pytest.mark.skip\ndef test_one(nova): pass\n", "test_it.py")
    assert "1 skipped" in site.pytest("-q")[1]
    assert not (site.folder / ".novad").exists()


def test_a_run_that_asks_for_no_cluster_pays_nothing(site: Site) -> None:
    check = (
        "import sys\ndef test_one(pytestconfig):\n    assert pytestconfig.pluginmanager.hasplugin('novad') or "
        "pytestconfig.pluginmanager.hasplugin('novad.testing.plugin')\n"
        "    heavy = {'eventlet', 'click', 'pydantic', 'kombu', 'psutil', 'novad.client', 'novad.core'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    site.write(check, "test_it.py")
    code, out, err = site.pytest("-q")
    assert code == 0, out + err


HANGING = """
import time

def test_hang(nova):
    print(nova.namespace, flush=True)
    time.sleep(1000)
"""


def test_two_seconds_after_its_daemon_is_killed_nothing_of_a_cluster_is_left_and_the_test_goes_on(
    site: Site,
) -> None:
    site.write(CLUSTER)
    os.mkfifo(site.folder / "go")
    wait = "import os\n\ndef test_it(nova):\n    print(nova.namespace, flush=True)\n    open('go').read()\n"
    site.write(wait, "test_it.py")
    runner = site.start(*pytest_argv("-q", "-s"))
    assert runner.stdout is not None
    assert "test-" in runner.stdout.readline()
    (daemon,) = site.daemons()
    os.kill(daemon, signal.SIGKILL)
    left = left_of_services(site, 2.0)
    assert left == []
    (site.folder / "go").write_text("")
    out, _ = runner.communicate(timeout=30)
    assert runner.returncode == 1
    assert "is lost" in out
    assert site.left_after(2.0) == []


def left_of_services(site: Site, seconds: float) -> list[str]:
    """What is alive of the cluster after that time, pytest and its guardian not among it."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        left = [seen.command for seen in site.live() if "NOVAD_ID=" in environment(seen.pid)]
        if not left:
            break
        select.select([], [], [], 0.01)
    return left


def environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("victims", ["pytest", "daemon pytest", "pytest daemon"])
def test_two_seconds_after_pytest_is_killed_nothing_is_left(site: Site, victims: str) -> None:
    site.write(CLUSTER)
    site.write(HANGING, "test_it.py")
    runner = site.start(*pytest_argv("-q", "-s"))
    assert runner.stdout is not None
    assert "test-" in runner.stdout.readline()
    (daemon,) = site.daemons()
    for victim in victims.split():
        os.kill({"pytest": runner.pid, "daemon": daemon}[victim], signal.SIGKILL)
    assert site.left_after(2.0) == []
    runner.communicate(timeout=10)


def test_two_seconds_after_the_controller_of_workers_is_killed_nothing_is_left(site: Site) -> None:
    site.write(CLUSTER)
    os.mkfifo(site.folder / "up")
    site.write(HANGING.replace("print(nova.namespace, flush=True)", "open('up', 'w').write('x')"), "test_it.py")
    runner = site.start(*pytest_argv("-q", "-n", "1"))
    with open(site.folder / "up") as pipe:
        assert pipe.read() == "x"
    runner.kill()
    runner.wait()
    # The worker, which is in the middle of a test, ends when xdist lets it; the cluster does not wait for it.
    left = site.left_after(2.0)
    assert [seen for seen in left if "sleep 1000" in seen.command or "novad.daemon" in seen.command] == []
    site.end()
    runner.communicate()
