"""Listens on its port and does nothing with what it is told."""

import os
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.create_server(("127.0.0.1", int(os.environ["STORE_PORT"]))) as server:
    while True:
        server.accept()[0].close()
