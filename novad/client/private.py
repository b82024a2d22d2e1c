"""Directories and files that are the user's alone: made with mode 0700 and 0600, and never reached through a link.

What is in a project's directory may have come with it, from a repository of somebody else: a link there must not
lead a write of ours to another file of the user.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from novad.core.errors import NovadError


def private_directory(path: Path) -> None:
    """Makes `path` with mode 0700, or checks that what is there is ours and lets nobody else in.

    Raises `NovadError` where it is not a directory of ours, `OSError`.
    """
    try:
        path.mkdir(mode=0o700, parents=False)
    except FileExistsError:
        pass
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NovadError(f"{path}: not a directory", f"remove it: rm {path}")
    if found.st_uid != os.getuid():
        raise NovadError(f"{path}: belongs to uid {found.st_uid}", "set XDG_RUNTIME_DIR to a directory of yours")
    if found.st_mode & 0o077:
        path.chmod(0o700)


def is_anybodys(path: Path) -> bool:
    """Whether everybody may rename what is in `path`: writable by all, without the sticky bit (inode(7))."""
    mode = path.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def private_file(path: Path) -> int:
    """A descriptor of `path` for appending, mode 0600, made where it is not there; close it.

    Raises `NovadError` where it is a link, `OSError`.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NovadError(f"{path}: a symbolic link", f"remove it: rm {path}") from error
        raise
    os.fchmod(fd, 0o600)
    return fd


def replace_file(path: Path, text: str) -> None:
    """Give `path` this content at once: whoever reads sees the old or the new. Raises `OSError`."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    fresh.replace(path)
