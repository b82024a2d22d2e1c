"""The same contract through kombu alone, in a process that is patched as a service is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = "from nova import green; green.patch(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


@pytest.mark.parametrize("promises", ["calls", "outages", "blocked"])
def test_every_promise_holds_on_kombu_as_well(promises: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", f"tests/services/rpc/test_{promises}.py"],
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
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-8000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout
