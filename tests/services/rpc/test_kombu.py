"""The same contract through kombu alone, in a process that is patched as a service is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
RUN = "from nova import green; green.patch(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


def test_every_promise_about_calls_holds_on_kombu_as_well() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", "tests/services/rpc/test_calls.py"],
        cwd=ROOT,
        env={
            **os.environ,
            "NOVA_TEST_RPC_TRANSPORT": "kombu",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'services'}",
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout[-8000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout
