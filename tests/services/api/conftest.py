"""A whole cloud in this process: scheduler, two compute hosts, network and volume, and the API on a port."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import boto3
import botocore.config
import botocore.loaders
import botocore.model
import pytest
from nova import flags, wsgi
from nova.api.manager import ApiManager
from nova.service import Service
from nova.testing import service_runner

PLACES = (("network", "n1"), ("volume", "v1"), ("compute", "c1"), ("compute", "c2"), ("scheduler", "s1"))


@functools.cache
def model() -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ec2", "service-2"))


class Checked:
    """The application, with every answer held against botocore's model: an element that EC2 does not have would be
    lost on every client without a word."""

    def __init__(self, application) -> None:
        self.application = application
        self.strange: list[str] = []
        self.model = model()

    def __call__(self, environ, start_response):
        body = b"".join(self.application(environ, start_response))
        root = ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", body, count=1))
        if root.tag != "Response":
            action = self.model.operation_model(root.tag.removesuffix("Response"))
            root.remove(root.find("requestId"))
            self._check(root, action.output_shape, root.tag)
        return [body]

    def _check(self, element, shape, path: str) -> None:
        if shape is None or shape.type_name == "structure":
            members = shape.members if shape else {"Return": None}
            known = {
                (member.serialization.get("name") if member else "return") or name: member
                for name, member in members.items()
            }
            for child in element:
                if child.tag not in known and child.tag != "return":
                    self.strange.append(f"{path}.{child.tag}")
                elif known.get(child.tag) is not None:
                    self._check(child, known[child.tag], f"{path}.{child.tag}")
        elif shape.type_name == "list":
            for child in element:
                if child.tag != "item":
                    self.strange.append(f"{path}.{child.tag}")
                self._check(child, shape.member, f"{path}.item")
        elif len(element):
            self.strange.append(f"{path} is a {shape.type_name} and has children")


@pytest.fixture
def checked() -> type[Checked]:
    return Checked


@pytest.fixture
def cloud(state_path: Path, bus: None) -> Iterator[dict[str, Service]]:
    """The services by host."""
    running = {host: Service.create(topic=topic, host=host) for topic, host in PLACES}
    with service_runner(*running.values()):
        yield running


@pytest.fixture
def api_url(state_path: Path, bus: None) -> Iterator[str]:
    manager = ApiManager()
    manager.init_host()
    server = wsgi.Server()
    application = Checked(manager.wsgi_app())
    server.start(application)
    yield f"http://127.0.0.1:{server.port}"
    server.kill()
    assert application.strange == []


@pytest.fixture
def ec2_for(api_url: str):
    """A client with keys of its own."""

    def client(access_key: str | None = None, secret_key: str | None = None, path: str = "/services/Cloud"):
        return boto3.client(
            "ec2",
            endpoint_url=api_url + path,
            region_name="nova",
            aws_access_key_id=access_key or flags.FLAGS.ec2_access_key,
            aws_secret_access_key=secret_key or flags.FLAGS.ec2_secret_key,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )

    return client


@pytest.fixture
def ec2(ec2_for):
    return ec2_for()
