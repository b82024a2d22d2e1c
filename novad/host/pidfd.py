"""What a pidfd tells of a process that is not our child: its exit status, where the kernel keeps it."""

from __future__ import annotations

import fcntl
import struct

# linux/pidfd.h: struct pidfd_info, PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info), PIDFD_INFO_EXIT.
INFO_BYTES = 64
INFO_EXIT = 1 << 3
GET_INFO = (3 << 30) | (INFO_BYTES << 16) | (0xFF << 8) | 11
STATUS_OFFSET = 60


def exit_status(pidfd: int) -> int | None:
    """The wait status (see `os.waitstatus_to_exitcode`) of a process that its parent has reaped.

    None while it has not been reaped, and always before Linux 6.15.
    """
    info = bytearray(INFO_BYTES)
    struct.pack_into("Q", info, 0, INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", info)
    if not mask & INFO_EXIT:
        return None
    (status,) = struct.unpack_from("i", info, STATUS_OFFSET)
    return int(status)
