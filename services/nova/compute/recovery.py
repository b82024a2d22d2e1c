"""What to do with an instance of which one knows the row and the guest. Pure and total.

A host may die between any two steps, so after a start the row says what was wanted and the guest says how far it
got. Each action finishes what was wanted or undoes it; nothing stays between. The same table serves the periodic
check, so an operator who removes a guest by hand sees the row follow.
"""

from __future__ import annotations

from enum import Enum

from nova.db import instances as db


class Guest(Enum):
    """What the hypervisor has."""

    ON = "on"
    OFF = "off"
    ABSENT = "absent"


class Action(Enum):
    NOTHING = "nothing"
    RUN = "go on building"
    START = "go on starting"
    STOP = "go on stopping"
    TERMINATE = "go on terminating"
    SETTLE = "forget the step that was under way"
    MARK_STOPPED = "the guest was switched off"
    MARK_LOST = "the guest is gone"
    DESTROY = "the guest belongs to nobody"


def decide(state: str | None, task: str | None, guest: Guest) -> Action:
    """`state` None: no row of this host. Unknown states are left alone: a newer version may know them."""
    match state:
        case db.PENDING if task == db.STARTING:
            return Action.MARK_LOST if guest is Guest.ABSENT else Action.START
        case db.PENDING if task in (db.SCHEDULED, db.BUILDING):
            return Action.RUN
        case db.PENDING:  # back with the scheduler
            return Action.NOTHING if guest is Guest.ABSENT else Action.DESTROY
        case db.RUNNING if guest is Guest.ON:
            return Action.SETTLE if task else Action.NOTHING
        case db.RUNNING:
            return Action.MARK_STOPPED if guest is Guest.OFF else Action.MARK_LOST
        case db.STOPPING:
            return Action.MARK_LOST if guest is Guest.ABSENT else Action.STOP
        case db.STOPPED:
            return {Guest.ABSENT: Action.MARK_LOST, Guest.ON: Action.STOP, Guest.OFF: Action.NOTHING}[guest]
        case db.SHUTTING_DOWN:
            return Action.TERMINATE
        case None | db.TERMINATED | db.ERROR:
            return Action.NOTHING if guest is Guest.ABSENT else Action.DESTROY
        case _:
            return Action.NOTHING
