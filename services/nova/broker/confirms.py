"""Publishers that asked for confirms, and what their confirms wait for.

Pure. What was published in a turn is confirmed at its end, behind the journal's write; where something of it is
persistent, behind a sync of the disk as well, and so is all that the same channel published after it, because
confirms leave in order. A sync is for all channels that wait when it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nova.broker.channel import Channel


class Confirms:
    def __init__(self) -> None:
        self._due: dict[Channel, None] = {}
        self._unsynced: dict[Channel, None] = {}  # wait for the next sync
        self._syncing: dict[Channel, int] = {}  # wait for the one under way, up to this publication
        self._needs_sync = False

    def add(self, channel: Channel, needs_sync: bool) -> None:
        """The channel has published something this turn."""
        self._due[channel] = None
        self._needs_sync = self._needs_sync or needs_sync

    def forget(self, channel: Channel) -> None:
        """The channel has ended."""
        for waiting in (self._due, self._unsynced, self._syncing):
            waiting.pop(channel, None)

    def take_needs_sync(self) -> bool:
        """Whether something of this turn must be on disk before it is confirmed."""
        needs_sync, self._needs_sync = self._needs_sync, False
        return needs_sync

    def end_turn(self, is_written: bool, is_synced: bool) -> None:
        """Sends what needs nothing more; not `is_written`: what was to be kept is refused."""
        due, self._due = self._due, {}
        for channel in due:
            if not is_written and channel.has_stored:
                self.forget(channel)
                channel.send_confirms(False)
            elif is_synced or not (channel.has_stored or channel in self._unsynced or channel in self._syncing):
                channel.send_confirms(True)
            else:
                self._unsynced[channel] = None

    def begin_sync(self) -> bool:
        """Whether a sync is wanted now; `end_sync` must follow it."""
        if self._syncing or not self._unsynced:
            return False
        unsynced, self._unsynced = self._unsynced, {}
        self._syncing = {channel: channel.take_published() for channel in unsynced}
        return True

    def end_sync(self, is_done: bool) -> None:
        syncing, self._syncing = self._syncing, {}
        for channel, last in syncing.items():
            channel.send_confirms(is_done, last)
