"""Looks at every instance of a host, row and guest side by side, and has done what `recovery` says.

It runs at the start, for what needs no other service, and every few seconds for everything. What a method is at just
now is left to that method. Rows and guests are never read at the same moment, so what follows from both of them, such
as that a guest is lost, is looked at once more while no method can be at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nova.compute import recovery
from nova.compute.driver import Driver
from nova.compute.recovery import Action
from nova.db import instances as db
from nova.db import session, volumes
from nova.db.volumes import Volume
from nova.keyed import KeyedLocks

log = logging.getLogger(__name__)

Act = Callable[[Any, int], None]

_NEEDS_OTHERS = {Action.RUN, Action.TERMINATE, Action.MARK_LOST}
# Methods check for themselves, under the lock, that they still have to do what they are called for; these do not.
_UNCHECKED = {Action.SETTLE, Action.MARK_STOPPED, Action.MARK_LOST, Action.DESTROY}


class Reconciler:
    """`acts` says how each action is done, to (context, instance id); `busy` holds what a method is at."""

    def __init__(self, host: str, driver: Driver, busy: KeyedLocks, acts: Mapping[Action, Act]) -> None:
        self._host = host
        self._driver = driver
        self._busy = busy
        self._acts = acts

    def instances(self, context: Any, local_only: bool = False) -> None:
        """Bring every instance of the host to rest; with `local_only` only what this host can do alone."""
        for instance_id, action in self._look().items():
            if action is Action.NOTHING or (local_only and action in _NEEDS_OTHERS):
                continue
            if not self._busy.is_held(instance_id):
                _guarded(action.value, partial(self._act, action), context, instance_id)

    def _look(self) -> dict[int, Action]:
        """What each instance of the host needs."""
        with session.read() as s:
            rows = {row.id: row for row in db.on_host(s, self._host)}
        guests = self._driver.guests()
        actions = {}
        for instance_id in sorted(rows.keys() | guests.keys()):
            row = rows.get(instance_id)
            guest = _guest_state(guests.get(instance_id))
            action = recovery.decide(row.state if row else None, row.task if row else None, guest)
            actions[instance_id] = action
            if action is not Action.NOTHING:
                log.debug("instance %d is %s, its guest %s", instance_id, _words(row), guest.value)
        return actions

    def _act(self, action: Action, context: Any, instance_id: int) -> None:
        act = self._acts[action]
        if action not in _UNCHECKED:
            log.info("instance %d: %s", instance_id, action.value)
            act(context, instance_id)
            return
        with self._busy.hold(instance_id):
            if self._look().get(instance_id) is action:
                log.warning("instance %d: %s", instance_id, action.value)
                act(context, instance_id)

    def volumes(self, context: Any, finish: Mapping[str, Callable[[Any, int, int], None]]) -> None:
        """Finish attachments that were interrupted; `finish` maps a status to what is done about it."""
        for volume in self._moving(*finish):
            assert volume.instance_id is not None
            if not self._busy.is_held(volume.instance_id):
                _guarded(volume.status, finish[volume.status], context, volume.instance_id, volume.id)

    def _moving(self, *statuses: str) -> list[Volume]:
        with session.read() as s:
            found = volumes.in_status(s, *statuses)
            mine = {row.id for row in db.on_host(s, self._host)} if found else set()
        return [volume for volume in found if volume.instance_id in mine]


def _guarded(what: str, act: Callable[..., None], context: Any, *args: int) -> None:
    """One instance that resists does not keep the others waiting."""
    try:
        act(context, *args)
    except Exception:
        log.exception("instance %d: cannot %s; trying again later", args[0], what)


def _guest_state(is_on: bool | None) -> recovery.Guest:
    if is_on is None:
        return recovery.Guest.ABSENT
    return recovery.Guest.ON if is_on else recovery.Guest.OFF


def _words(row: db.Instance | None) -> str:
    return "unknown here" if row is None else f"{row.state} ({row.task})" if row.task else row.state
