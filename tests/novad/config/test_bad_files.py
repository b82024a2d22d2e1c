"""Each wrong nova.toml in `bad/` gives exactly the report beside it.

`bad/NAME.toml` is the file, `bad/NAME/` further files beside it, `bad/NAME.txt` the report; a first line
`# profile: ci` chooses a profile. After a wanted change of the texts, `NOVAD_WRITE_REPORTS=1` writes the reports
anew: read the difference before you commit it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from novad.config.load import compile_cluster
from novad.config.report import ConfigFaults
from tests.novad.config.compiling import arguments

BAD = Path(__file__).parent / "bad"
CASES = sorted(path.stem for path in BAD.glob("*.toml"))


def report(name: str, folder: Path) -> str:
    if (BAD / name).is_dir():
        shutil.copytree(BAD / name, folder, dirs_exist_ok=True)
    text = (BAD / f"{name}.toml").read_text()
    config = folder.resolve() / "nova.toml"
    config.write_text(text)
    first, _, profile = text.partition("\n")[0].partition("# profile: ")
    with pytest.raises(ConfigFaults) as caught:
        compile_cluster(str(config), **arguments(profile=None if first else profile or None))
    assert caught.value.exit_code == 78
    return caught.value.render().replace(str(config.parent), "/project") + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_report_of_a_wrong_file_is_as_written_down(name: str, tmp_path: Path) -> None:
    made = report(name, tmp_path)
    golden = BAD / f"{name}.txt"
    if os.environ.get("NOVAD_WRITE_REPORTS"):
        golden.write_text(made)
    assert golden.exists(), f"there is no {golden}; the report is:\n{made}"
    assert made == golden.read_text()


def test_there_are_at_least_forty_wrong_files_and_no_stray_report() -> None:
    assert len(CASES) >= 40
    assert sorted(path.stem for path in BAD.glob("*.txt")) == CASES
