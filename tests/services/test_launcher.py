"""Several services in one process: tiers, readiness of all, the exit code of the worst."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from nova import notify
from nova.testing import ServiceProcess

SCRIPT = """
import sys
from nova import green
green.patch()
from nova import flags, log, manager, rpc, service
FLAGS = flags.FLAGS
flags.DEFINE_string("fail", "", "the service that fails")
flags.DEFINE_float("call_s", 0.0, "seconds of a call that is in flight at once")

class Noisy(manager.Manager):
    name = ""

    def __init__(self, host=None, name=""):
        super().__init__(host)
        self.name = name

    def init_host(self):
        print(f"{self.name} begins", flush=True)
        green.sleep(0.05)
        if FLAGS.fail == self.name:
            raise RuntimeError("no")
        print(f"{self.name} began", flush=True)

    def post_start_hook(self):
        if self.name == "compute" and FLAGS.call_s:
            self.spawn(self.work)

    def work(self):
        print("work began", flush=True)
        green.sleep(FLAGS.call_s)
        from nova import context
        address = rpc.call(context.get_admin_context(), "network", {"method": "allocate", "args": {}}, timeout=5)
        print(f"work got {address}", flush=True)

    def allocate(self, context):
        return "10.0.0.1"

    def cleanup_host(self):
        print(f"{self.name} ended", flush=True)

FLAGS(sys.argv)
log.setup()
launcher = service.Launcher(name="nova-several")
for tier, name in enumerate(["compute", "network"]):
    made = service.Service.create(topic=name, manager=f"{__name__}.Noisy", name=name)
    launcher.launch_service(made, tier)
code = launcher.wait()
log.flush()
sys.stdout.flush()
import os
os._exit(code)
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "several.py"
    path.write_text(SCRIPT)
    return str(path)


def several(script: str, *arguments: str, **env: str) -> ServiceProcess:
    return ServiceProcess(script, "--fake_rabbit", *arguments, env=env)


def order(log: str, *texts: str) -> bool:
    places = [log.index(text) for text in texts]
    return places == sorted(places)


def test_a_higher_tier_starts_first_and_stops_last(script: str) -> None:
    with several(script) as service:
        service.wait_ready()
        service.signal("TERM")
        assert service.wait() == 0
        assert order(service.log, "network began", "compute begins", "compute ended", "network ended")
        assert any(
            line.startswith("STATUS=nova-compute@test-host, nova-network@test-host ready")
            for line in service.said
        )


def test_what_drains_still_calls_services_of_higher_tiers(script: str) -> None:
    with several(script, "--call_s=0.4") as service:
        service.wait_ready()
        service.signal("TERM")
        assert service.wait() == 0
        assert order(
            service.log, "work began", "TERM: stopping", "work got 10.0.0.1", "compute ended", "network ended"
        )


def test_one_service_that_cannot_start_ends_the_process_with_its_code(script: str) -> None:
    with several(script, "--fail=compute") as service:
        assert service.wait() == 1
        assert "READY=1" not in service.said
        assert order(service.log, "network began", "cannot start: RuntimeError: no", "network ended")


def test_all_tiers_together_end_within_the_drain_timeout(script: str) -> None:
    with several(script, "--call_s=60", "--drain_timeout=0.4") as service:
        service.wait_ready()
        service.signal("TERM")
        assert service.wait(5) == 4
        assert "still waits for spawned" in service.log


def test_term_between_the_tiers_is_clean(script: str) -> None:
    with several(script) as service:
        service.wait_log("network begins")
        service.signal("TERM")
        assert service.wait() == 0
        assert "compute begins" not in service.log
        assert "Traceback" not in service.log


def test_the_supervisors_watchdog_hears_the_hub(script: str) -> None:
    with several(script, WATCHDOG_USEC="100000") as service:
        service.wait_ready()
        for _ in range(3):
            service.said.clear()
            service.wait_said("WATCHDOG=1")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    services = str(Path(notify.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": services, "NOVA_STATE_PATH": str(tmp_path), "NOVA_FAKE_RABBIT": "true"}


def run(code: str, environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)


def test_serve_and_wait_are_a_whole_program(environ: dict[str, str]) -> None:
    code = """
        from nova import green; green.patch()
        import sys
        from nova import flags, manager, service
        flags.FLAGS(["x"])
        class M(manager.Manager):
            def post_start_hook(self):
                green.spawn_after(0.1, launcher.stop)
        launcher = service.serve(service.Service.create(topic="m", manager="__main__.M"))
        code = service.wait()
        print("code", code, service.wait())
    """
    result = run(code, environ)
    assert result.stdout == "code 0 0\n", result.stderr


def test_outside_the_main_thread_a_launcher_works_without_signals(environ: dict[str, str]) -> None:
    code = """
        from nova import green
        import logging, sys, threading
        logging.basicConfig()
        from nova import flags, manager, service
        flags.FLAGS(["x"])
        class M(manager.Manager):
            def post_start_hook(self):
                green.spawn_after(0.1, launcher.stop)
        def run():
            global launcher
            launcher = service.Launcher()
            launcher.launch_service(service.Service.create(topic="m", manager="__main__.M"))
            print("code", launcher.wait())
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """
    result = run(code, environ)
    assert result.stdout == "code 0\n", result.stderr
    assert "signals are left alone" in result.stderr


def test_importing_the_services_after_the_patch_warns_of_nothing(environ: dict[str, str]) -> None:
    code = "from nova import green; green.patch(); from nova import launcher, service, testing"
    result = run(code, environ, "-W", "error", "-W", "ignore::DeprecationWarning")
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_nova_patches_nothing(environ: dict[str, str]) -> None:
    code = """
        from nova import green, launcher, service, testing
        print(green.is_monkey_patched("socket"))
    """
    with contextlib.suppress(KeyError):
        environ.pop("NOVA_FAKE_RABBIT")
    assert run(code, environ).stdout == "False\n"
