"""Many callers at once, to be killed: `python -m tests.system.callers COUNT [flags]`.

Each is a process of its own that calls `add(n)` of the topic tally and waits. It is forked, since two hundred that
import everything take minutes, and gets a hub of its own: its parent's waits on an epoll that all would share.
"""

from nova import green

green.patch()

import os  # noqa: E402
import sys  # noqa: E402

from eventlet import hubs  # noqa: E402
from nova import context, flags, rpc  # noqa: E402
from nova.rpc import fast  # noqa: E402, F401  (once, not in each)


def main(count: int) -> None:
    for number in range(count):
        if os.fork() == 0:
            hubs.use_hub()
            rpc.Client("tally").call(context.get_admin_context(), "add", n=number)
            os._exit(0)
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    flags.FLAGS([sys.argv[0], *sys.argv[2:]])
    main(int(sys.argv[1]))
