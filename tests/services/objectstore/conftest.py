"""A real store behind a real HTTP server on a free port, and unmodified boto3 in front of it.

The server runs in the hub of the main thread. A test marked `native` runs in a native thread, so that boto3 may
block there as it does in anybody's program.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.config
import pytest
from nova import flags, wsgi
from nova.objectstore.application import Application
from nova.objectstore.store import Store


@pytest.fixture
def store(state_path: Path) -> Iterator[Store]:
    store = Store(state_path / "objects")
    store.open()
    yield store
    store.close()


@pytest.fixture
def s3_url(store: Store) -> Iterator[str]:
    server = wsgi.Server()
    server.start(Application(store))
    yield f"http://127.0.0.1:{server.port}"
    server.kill()


@pytest.fixture
def s3(s3_url: str):
    return client(s3_url)


def client(url: str, access_key: str | None = None, secret_key: str | None = None):
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="nova",
        aws_access_key_id=access_key or flags.FLAGS.ec2_access_key,
        aws_secret_access_key=secret_key or flags.FLAGS.ec2_secret_key,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


@pytest.fixture
def client_for(s3_url: str):
    """A client with other keys."""
    return lambda access_key, secret_key: client(s3_url, access_key, secret_key)
