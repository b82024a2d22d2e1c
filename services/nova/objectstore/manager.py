"""nova-objectstore: the S3 API over a folder of this host."""

from __future__ import annotations

from pathlib import Path

from nova import flags
from nova.db import session
from nova.manager import WebManager
from nova.objectstore.application import Application
from nova.objectstore.store import Store

FLAGS = flags.FLAGS
flags.DEFINE_string("objectstore_listen", "127.0.0.1", "address on which the object store listens")
flags.DEFINE_integer("objectstore_listen_port", 3333, "port on which the object store listens", least=0)
flags.DEFINE_string("objectstore_path", "$state_path/objects", "directory of buckets and objects")


class ObjectStoreManager(WebManager):
    """Opens the store when the service starts and gives the application that serves it."""

    def init_host(self) -> None:
        session.sync()
        self._store = Store(Path(FLAGS.objectstore_path))
        self._store.open()

    def cleanup_host(self) -> None:
        self._store.close()

    def wsgi_app(self) -> Application:
        return Application(self._store)
