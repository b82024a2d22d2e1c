"""What a pidfd tells of a process that is not our child: its exit status, where the kernel keeps it."""

from __future__ import annotations

import fcntl
import signal
import struct

from novad.host import proc

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


def status_of_the_dead(pidfd: int, pid: int) -> int | None:
    """The wait status of a process that has ended, whether its parent has reaped it or not.

    A zombie's is in /proc/PID/stat for its own user (proc_pid_stat(5), exit_code) unless it is 0.
    None where nobody can say it.
    """
    status = proc.zombie_status(pid)
    try:
        # Reaches a zombie, and nothing that was reaped: the pid read above was no other process's.
        signal.pidfd_send_signal(pidfd, 0)
    except OSError:
        return exit_status(pidfd)
    return status
