"""A service in a process of its own, for the tests that kill it: victim.py TOPIC HOST FOLDER [flags].

Each method leaves a line in FOLDER/log, appended in one write: what ran, and in which process.
"""

from nova import green

green.patch()

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

from nova import rpc  # noqa: E402
from nova.flags import FLAGS  # noqa: E402


def note(folder: str, text: str) -> None:
    with open(os.path.join(folder, "log"), "a") as stream:
        stream.write(f"{text} {os.getpid()}\n")


class Methods:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def pid(self):
        return os.getpid()

    def hold(self, name):
        """Runs until the file `go` is there."""
        note(self.folder, f"hold {name}")
        while not os.path.exists(os.path.join(self.folder, "go")):
            green.sleep(0.02)
        return name

    def once(self, name):
        return self.hold(name)

    def again(self, name):
        return self.hold(name)

    def effect(self, name):
        note(self.folder, f"effect {name}")
        return name

    def die(self):
        note(self.folder, "die")
        os.kill(os.getpid(), signal.SIGKILL)

    def burn(self, seconds):
        """Blocks the hub, as a method must not."""
        note(self.folder, "burn")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return os.getpid()

    again.rpc_idempotent = True


def recover(ctxt, method, args):
    if method == "once":
        raise rpc.MessageAbandoned("once: had begun")
    return f"recovered {method}"


def main() -> None:
    topic, host, folder = FLAGS(sys.argv)[1:4]
    methods = Methods(folder)
    server = rpc.get_server(
        topic,
        host,
        lambda ctxt, method, args: getattr(methods, method)(**args),
        4,
        method_of=lambda name: getattr(methods, name, None),
        recover=recover,
    )
    server.start()
    print("ready", flush=True)
    green.sleep(600)


main()
