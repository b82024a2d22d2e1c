"""What a restarted nova-compute does with each pair of row and guest: the table, and that it ends."""

from __future__ import annotations

import pytest
from nova.compute.recovery import Action, Guest, decide

ON, OFF, ABSENT = Guest.ON, Guest.OFF, Guest.ABSENT


@pytest.mark.parametrize(
    ("state", "task", "guest", "action"),
    [
        ("pending", "scheduled", ABSENT, Action.RUN),
        ("pending", "building", ABSENT, Action.RUN),
        ("pending", "building", ON, Action.RUN),
        ("pending", "scheduling", ON, Action.DESTROY),
        ("pending", "scheduling", ABSENT, Action.NOTHING),
        ("pending", "starting", OFF, Action.START),
        ("pending", "starting", ABSENT, Action.MARK_LOST),
        ("running", None, ON, Action.NOTHING),
        ("running", "rebooting", ON, Action.SETTLE),
        ("running", None, OFF, Action.MARK_STOPPED),
        ("running", None, ABSENT, Action.MARK_LOST),
        ("stopping", None, ON, Action.STOP),
        ("stopping", None, ABSENT, Action.MARK_LOST),
        ("stopped", None, OFF, Action.NOTHING),
        ("stopped", None, ON, Action.STOP),
        ("shutting-down", "deleting", ON, Action.TERMINATE),
        ("shutting-down", "deleting", ABSENT, Action.TERMINATE),
        ("terminated", None, ON, Action.DESTROY),
        ("error", None, OFF, Action.DESTROY),
        ("terminated", None, ABSENT, Action.NOTHING),
        (None, None, ON, Action.DESTROY),
        ("of-a-newer-version", None, ON, Action.NOTHING),
    ],
)
def test_the_table(state: str | None, task: str | None, guest: Guest, action: Action) -> None:
    assert decide(state, task, guest) is action


# What each action makes of (state, task, guest) when it succeeds; MARK_LOST and DESTROY leave no guest.
OUTCOMES = {
    Action.RUN: ("running", None, ON),
    Action.START: ("running", None, ON),
    Action.STOP: ("stopped", None, OFF),
    Action.TERMINATE: ("terminated", None, ABSENT),
    Action.MARK_LOST: ("error", None, ABSENT),
}
STATES = ("pending", "running", "stopping", "stopped", "shutting-down", "terminated", "error", None)
TASKS = ("scheduling", "scheduled", "building", "starting", "rebooting", "deleting", None)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("guest", Guest)
def test_every_combination_comes_to_rest(state: str | None, task: str | None, guest: Guest) -> None:
    for _ in range(3):
        action = decide(state, task, guest)
        if action is Action.NOTHING:
            return
        if action is Action.SETTLE:
            task = None
        elif action is Action.MARK_STOPPED:
            state, task = "stopped", None
        elif action is Action.DESTROY:
            guest = ABSENT
        else:
            state, task, guest = OUTCOMES[action]
    pytest.fail(f"still {decide(state, task, guest)}")
