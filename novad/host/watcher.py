"""A process that watches directories: `python -m novad.host.watcher FD ROOT...` prints what changed.

A JSON list of paths a line on stdout, after a first empty one that says that everything from now on is seen.
watchfiles waits in a native thread that wakes some times a second, which is why this is no part of novad's own
process. It ends when FD, the reading end of a pipe of novad's, does.
"""

from __future__ import annotations

import json
import os
import sys
import threading

import watchfiles

# How often the native thread looks whether inotify had anything to say; how long changes are gathered; after which
# silence a look says that it watches.
STEP_MS = 50
GATHER_MS = 100
SILENCE_MS = 200


def main() -> None:
    """Runs until the pipe is closed."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    changes = watchfiles.watch(
        *sys.argv[2:],
        watch_filter=watchfiles.DefaultFilter(ignore_dirs=(*watchfiles.DefaultFilter.ignore_dirs, ".novad")),
        step=STEP_MS,
        debounce=GATHER_MS,
        rust_timeout=SILENCE_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    is_first = True
    for found in changes:
        if found or is_first:
            is_first = False
            print(json.dumps(sorted(path for _, path in found)), flush=True)


def _end_with(fd: int) -> None:
    os.read(fd, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
