"""The code of `novad run` where the daemon gives no answer in time, after the command has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from novad.client.link import unanswered
from novad.testing.run import NO_CLUSTER, Run
from novad.testing.story import Story


class SilentRun(Run):
    """A run whose command has ended with `code`, and whose daemon then answers nothing."""

    def __init__(self, code: int) -> None:
        self.app = SimpleNamespace(terminal=SimpleNamespace(err=lambda text: None))  # type: ignore[assignment]
        self.owned = SimpleNamespace(processes=self._silence)  # type: ignore[assignment]
        self.story = Story(SimpleNamespace(), (), 0.0)  # type: ignore[arg-type]
        self.command = code

    def _silence(self) -> Any:
        raise unanswered()

    def _come_up(self) -> int | None:
        return None

    def _run_command(self) -> int:
        return self.command

    def _finish(self) -> None:
        pass


@pytest.mark.parametrize(("code", "told"), [(143, 143), (7, 7), (0, NO_CLUSTER)])
def test_a_daemon_that_does_not_answer_changes_no_code_of_the_command(code: int, told: int) -> None:
    assert SilentRun(code)._live() == told
