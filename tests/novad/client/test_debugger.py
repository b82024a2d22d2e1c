"""`fg --pdb`: which command lines pdb can run, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from novad.client.debugger import under_pdb
from novad.core.errors import UsageError

CASES = [
    (["python", "app.py", "x"], ["python", "-m", "pdb", "-c", "continue", "app.py", "x"]),
    (["/v/bin/python3.12", "-u", "-W", "error", "-m", "shop", "-v"],
     ["/v/bin/python3.12", "-u", "-W", "error", "-m", "pdb", "-c", "continue", "-m", "shop", "-v"]),
    (["python3", "-Xdev", "app.py"], ["python3", "-Xdev", "-m", "pdb", "-c", "continue", "app.py"]),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "expected"), CASES)
def test_pdb_comes_after_the_options_of_the_interpreter(argv: list[str], expected: list[str]) -> None:
    assert under_pdb(argv, "/", {}) == expected


@pytest.mark.parametrize("first", ["#!/v/bin/python3 -u", "#!/usr/bin/env -S /v/bin/python3 -u"])
def test_a_console_script_runs_with_its_own_interpreter(tmp_path: Path, first: str) -> None:
    script = tmp_path / "nova-api"
    script.write_text(f"{first}\nimport nova\n")
    script.chmod(0o755)
    expected = ["/v/bin/python3", "-u", "-m", "pdb", "-c", "continue", str(script), "--debug"]
    assert under_pdb(["nova-api", "--debug"], "/", {"PATH": str(tmp_path)}) == expected
    assert under_pdb(["./nova-api", "--debug"], str(tmp_path), {"PATH": ""})[:2] == ["/v/bin/python3", "-u"]


def test_a_script_of_env_is_run_by_that_python(tmp_path: Path) -> None:
    script = tmp_path / "app"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    assert under_pdb([str(script)], "/", {})[0] == "python3"


@pytest.mark.parametrize(
    "argv", [["sleep", "5"], ["no-such"], ["python", "-c", "print(1)"], ["python"], ["python", "-"]]
)
def test_what_pdb_cannot_run_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="--pdb"):
        under_pdb(argv, "/", {"PATH": "/usr/bin:/bin"})
