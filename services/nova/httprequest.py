"""What of a WSGI request is signed: the one reading of an environ that both APIs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nova.sigv4 import HttpRequest

# The names under which WSGI hides the two headers that are not HTTP_*.
_PLAIN = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}


def http_request(environ: Mapping[str, Any]) -> HttpRequest:
    """The path is as it was sent where the server kept it, else as it must have been."""
    headers = {
        name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"
    }
    headers.update({header: environ[name] for name, header in _PLAIN.items() if environ.get(name)})
    path = environ.get("RAW_PATH_INFO")
    if path is None:  # a server other than eventlet's, such as Werkzeug's test client
        path = quote(environ.get("PATH_INFO", "/").encode("latin-1"))
    return HttpRequest(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers)
