"""Records on disk: one small file a process, and the cluster's definition; each is old or new, never half.

They live in the run directory and mean something until the next boot. Nothing is fsynced: what must survive is
novad's death, not the machine's. A record that cannot be written is not an error: the mark in the environment
of the child and the lock that it holds find it all the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from novad.core import record
from novad.core.record import Identity, Record
from novad.host import proc
from novad.host.disk import Disk

CLUSTER = "cluster.json"
BLOCK_BYTES = 4096
# What is being written has this after its name until it is whole.
FRESH = ".new"


def write_json(path: str, value: Any) -> None:
    """Replace `path` as a whole: a reader sees the old value or the new one. Raises `OSError`."""
    fresh = f"{path}{FRESH}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = json.dumps(value, separators=(",", ":")).encode()
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    os.replace(fresh, path)


def write_block(path: str, value: Any) -> None:
    """As `write_json`, in place: one write within one page, which a kill cannot interrupt (only a larger write is
    looked at for signals, between its pages). A rename costs ext4 0.7 ms, because it flushes the new file first.

    Raises `OSError`.
    """
    data = json.dumps(value, separators=(",", ":")).encode()
    if len(data) > BLOCK_BYTES:
        write_json(path, value)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(fd, data.ljust(BLOCK_BYTES), 0)
        if os.fstat(fd).st_size > BLOCK_BYTES:
            os.ftruncate(fd, BLOCK_BYTES)
    finally:
        os.close(fd)


def read_json(path: str) -> Any:
    """The value, or None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


class Records:
    """The records and locks of one cluster, in its run directory."""

    def __init__(self, run_dir: str, disk: Disk) -> None:
        self._disk = disk
        self._cluster = f"{run_dir}/{CLUSTER}"
        self._watch = f"{run_dir}/watch"
        self._folder = f"{run_dir}/records"
        self._locks = f"{run_dir}/locks"
        for folder in (self._folder, self._locks):
            os.makedirs(folder, 0o700, exist_ok=True)

    def write_cluster(self, value: Any) -> None:
        """Raises `OSError`: without the definition nothing could be adopted."""
        write_json(self._cluster, value)

    def read_cluster(self) -> Any:
        return read_json(self._cluster)

    def remember_watch(self, is_on: bool) -> None:
        """Whether a later novad is to watch files too. That this cannot be written harms nobody."""
        try:
            if is_on:
                os.close(os.open(self._watch, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            else:
                _unlink(self._watch)
        except OSError:
            pass

    def is_watch_on(self) -> bool:
        return os.path.exists(self._watch)

    def write(self, item: Record) -> None:
        """Have it written by the disk's thread."""
        self._disk.submit(partial(_write_record, self._path(item.name), item))

    def remove(self, name: str) -> None:
        """Forget a process. Its lock goes at once: what comes later may take it anew."""
        self._disk.submit(partial(_unlink, self._path(name)))
        _unlink(f"{self._locks}/{name}")

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.json"

    def read(self) -> Iterator[Record]:
        """All records that can be read."""
        for entry in sorted(os.listdir(self._folder)):
            if entry.endswith(".json"):
                item = record.from_json(read_json(f"{self._folder}/{entry}"))
                if item is not None:
                    yield item

    def lock(self, name: str) -> int | None:
        """A descriptor that holds the lock of `name`, for its child to inherit; None while somebody holds it.

        The lock belongs to the open file, so it outlives novad and ends with the last process that has it.
        """
        fd = os.open(f"{self._locks}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def holders(self, name: str) -> list[int]:
        """Who has the lock file of `name` open; slow, for an error message."""
        path = os.path.realpath(f"{self._locks}/{name}")
        return [pid for pid in proc.all_pids() if pid != os.getpid() and path in proc.open_files(pid)]

    def clear_old(self) -> None:
        """Records from before the last boot, or without a cluster, mean nothing."""
        _unlink(self._watch)
        for item in list(self.read()):
            self.remove(item.name)

    def clear(self) -> None:
        """The cluster is down: nothing of it is left to know. Must come after the last write."""
        for folder in (self._folder, self._locks):
            try:
                for entry in os.listdir(folder):
                    os.unlink(f"{folder}/{entry}")
                os.rmdir(folder)
            except OSError:
                pass
        _unlink(self._watch)
        _unlink(self._cluster)
        # A novad that was killed while it wrote the definition has left a half one.
        _unlink(f"{self._cluster}{FRESH}")


def _write_record(path: str, item: Record) -> None:
    try:
        write_block(path, record.to_json(item))
    except OSError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def identify(pid: int, pidfd: int, pipes: tuple[int, ...]) -> Identity | None:
    """Who `pid` is, in words that still mean the same after novad's death; None when it is gone."""
    found = proc.stat(pid)
    if found is None:
        return None
    return Identity(pid, found.started, os.fstat(pidfd).st_ino, proc.boot_id(), pipes)


def is_same(identity: Identity, mark: str, variable: str) -> bool:
    """Whether the pid of `identity` is still that process.

    From Linux 6.9 a pidfd's inode is unique for the boot and decides alone; before, all pidfds share one, and the
    start time (10 ms grain) and the mark must both agree.
    """
    if identity.boot_id != proc.boot_id():
        return False
    found = proc.stat(identity.pid)
    if found is None or found.started != identity.started:
        return False
    # A dead child of our own has its status for us yet; a dead stranger is nobody.
    if found.state in "ZX" and found.parent != os.getpid():
        return False
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        inode = os.fstat(pidfd).st_ino
    finally:
        os.close(pidfd)
    if has_unique_inodes():
        return inode == identity.inode
    return proc.mark(identity.pid, variable) == mark


def has_unique_inodes() -> bool:
    """Whether this kernel gives each process's pidfd an inode of its own."""
    fds = [os.pidfd_open(pid) for pid in (os.getpid(), os.getppid())]
    try:
        return len({os.fstat(fd).st_ino for fd in fds}) == 2
    finally:
        for fd in fds:
            os.close(fd)
