"""One at a time for each key: locks that exist only while somebody holds or awaits them."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

from nova import green


class KeyedLocks:
    def __init__(self) -> None:
        self._locks: dict[Hashable, green.Semaphore] = {}
        self._users: dict[Hashable, int] = {}

    @contextlib.contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """Wait until nobody else holds `key`, and hold it for the `with` block."""
        lock = self._locks.setdefault(key, green.Semaphore(1))
        self._users[key] = self._users.get(key, 0) + 1
        try:
            with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]

    def is_held(self, key: Hashable) -> bool:
        return key in self._users
