"""Pages of somebody else, in the browser of a developer whose services listen on loopback."""

from __future__ import annotations

import http.client
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
from nova.testing import ServiceProcess

from tests.system.board import experiment, require
from tests.system.site import Site

# The keys that the documentation names: whoever wrote the page knows them too.
KEY, WRONG = "nova", "another"
HOSTS = ("127.0.0.1:{port}", "localhost:{port}", "evil", "evil:{port}", "127.0.0.1.evil:{port}", "0.0.0.0:{port}",
         "localhost.:{port}")  # fmt: skip
ORIGINS = (None, "null", "http://evil", "same")
SITES = (None, "same-origin", "cross-site")
METHODS = ("GET", "POST")
SIGNED = ("right", "wrong", "none")


class Cell(NamedTuple):
    """One request: what a browser, or a program, says about where it comes from."""

    host: str
    origin: str | None
    site: str | None
    method: str
    signed: str

    @property
    def is_allowed(self) -> bool:
        here = self.host.startswith(("127.0.0.1:", "localhost:"))
        return here and self.origin in (None, "same") and self.site != "cross-site" and self.signed == "right"


def cells(every: int) -> Iterator[Cell]:
    """The whole matrix, or each of its cells whose number divides by `every`."""
    matrix = itertools.product(HOSTS, ORIGINS, SITES, METHODS, SIGNED)
    return (Cell(*values) for number, values in enumerate(matrix) if number % every == 0)


@experiment(
    "R32",
    "requests as a browser sends them for pages of somebody else",
    short={"every": 5},
    full={"every": 1},
    controls={"a service that answers to a foreign name": {"every": 1, "flags": ["--allowed_hosts=evil"]}},
)
def pages_of_others(site: Site, every: int, flags: list[str] | None = None) -> str:
    """Only requests from here, signed rightly, change anything or are told anything."""
    ports = ("--api_listen_port=0", "--objectstore_listen_port=0")
    env = {"NOVA_STATE_PATH": str(site.folder / "state")}
    with ServiceProcess("nova-combined", *ports, *(flags or []), env=env) as process:
        log = process.wait_ready(60.0).log
        found = {
            name: int(re.findall(rf"nova-{name} listens on port (\d+)", log)[0])
            for name in ("api", "objectstore")
        }
        asked = list(cells(every))
        told = [_create_key(found["api"], cell, f"key-{number}") for number, cell in enumerate(asked)]
        kept = {pair["KeyName"] for pair in _client(found["api"]).describe_key_pairs()["KeyPairs"]}
        stored = [
            _put_bucket(found["objectstore"], cell, f"bucket-{number}") for number, cell in enumerate(asked)
        ]
    for number, (cell, answer, status) in enumerate(zip(asked, told, stored, strict=True)):
        require((f"key-{number}" in kept) == cell.is_allowed, f"{cell}: it changes something only where it may")
        require(("keyMaterial" in answer) == cell.is_allowed, f"{cell}: it is told something only where it may")
        refused = not cell._replace(site=None).is_allowed
        require((status == 200) != refused, f"{cell}: the object store answers {status}")
    allowed = sum(cell.is_allowed for cell in asked)
    return f"2 x {len(asked)} requests, {allowed} allowed, each of these and no other changed or read anything"


def _signed_path(cell: Cell, host: str, service: str, path: str) -> str:
    """Path and query with a signature in the query, as a page can send it without asking the server first."""
    if cell.signed == "none":
        return path
    secret = KEY if cell.signed == "right" else WRONG
    request = botocore.awsrequest.AWSRequest(cell.method, f"http://{host}{path}", data=b"")
    kind = botocore.auth.S3SigV4QueryAuth if service == "s3" else botocore.auth.SigV4QueryAuth
    kind(botocore.credentials.Credentials(KEY, secret), service, "nova", expires=300).add_auth(request)
    parts = urlsplit(request.url)
    return f"{parts.path}?{parts.query}"


def _send(port: int, cell: Cell, service: str, path: str) -> tuple[int, str]:
    host = cell.host.format(port=port)
    headers = {"Host": host}
    if cell.origin is not None:
        headers["Origin"] = f"http://{host}" if cell.origin == "same" else cell.origin
    if cell.site is not None:
        headers["Sec-Fetch-Site"] = cell.site
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        link.request(cell.method, _signed_path(cell, host, service, path), headers=headers)
        response = link.getresponse()
        text = response.read().decode()
        require(response.getheader("Access-Control-Allow-Origin") is None, f"{cell}: no page is let in")
        return response.status, text
    finally:
        link.close()


def _create_key(port: int, cell: Cell, name: str) -> str:
    path = f"/services/Cloud?Action=CreateKeyPair&Version=2016-11-15&KeyName={name}"
    return _send(port, cell, "ec2", path)[1]


def _put_bucket(port: int, cell: Cell, name: str) -> int:
    """The status of creating a bucket (PUT, whatever the cell says)."""
    return _send(port, cell._replace(method="PUT"), "s3", f"/{name}")[0]


def _client(port: int) -> boto3.client:
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY, "region_name": "nova"}
    return boto3.client("ec2", endpoint_url=f"http://127.0.0.1:{port}/services/Cloud", **keys)
