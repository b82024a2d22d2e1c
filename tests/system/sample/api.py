"""Needs the store."""

import os
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
host, port = os.environ["STORE"].split(":")
socket.create_connection((host, int(port))).close()
print("api: ready", flush=True)
signal.pause()
