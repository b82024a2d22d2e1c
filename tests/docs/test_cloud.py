"""docs/cloud.md says what is: its list of actions, its flags, and its program, which is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nova import flags, webservice
from nova.api import manager as api_manager
from nova.api.actions import ACTIONS
from nova.compute import manager as compute_manager
from nova.network import manager as network_manager
from nova.objectstore import manager as objectstore_manager
from nova.testing import ServiceProcess

PAGE = (Path(__file__).parent.parent.parent / "docs/cloud.md").read_text()
DEFINING = (api_manager, compute_manager, network_manager, objectstore_manager, webservice)
OF_NOVA_MANAGE = {"json", "project", "admin", "label", "interval"}


def test_the_list_of_actions_is_the_table_of_actions() -> None:
    listed = re.search(r"table of actions. -->\n(.*?)\.\n\n", PAGE, re.DOTALL)
    assert listed
    assert re.split(r",\s+", listed[1]) == sorted(ACTIONS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"--([a-z_0-9]+)", PAGE)) - OF_NOVA_MANAGE))
def test_every_flag_that_is_named_exists(name: str) -> None:
    assert DEFINING
    assert name in flags.FLAGS


def test_the_program_runs_and_prints_an_address(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ports = ("--api_listen_port=0", "--objectstore_listen_port=0")
    with ServiceProcess("nova-combined", *ports, env={"NOVA_STATE_PATH": str(tmp_path)}) as process:
        log = process.wait_ready(60.0).log
        for name, port in (("api", "8773"), ("objectstore", "3333")):
            (bound,) = re.findall(rf"nova-{name} listens on port (\d+)", log)
            program = program.replace(f":{port}", f":{bound}")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        process.signal("TERM")
        assert process.wait() == 0
    assert done.stderr == ""
    assert re.fullmatch(r"10\.0\.0\.\d+\n", done.stdout)
