"""WSGI applications: Application, Middleware and Router with Nova's names, on Werkzeug; `/healthz`; and `Guard`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Application:
    """A WSGI application that answers a request with a response; override `respond`."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            response: Any = self.respond(Request(environ))
        except HTTPException as error:
            response = error
        result: Iterable[bytes] = response(environ, start_response)
        return result

    def respond(self, request: Request) -> Any:
        """A Werkzeug response, or any WSGI application. Raises `HTTPException` to answer with an error."""
        raise NotImplementedError


class Middleware(Application):
    """Looks at requests before, and at responses after, the application that it wraps."""

    def __init__(self, application: WSGIApp) -> None:
        self.application = application

    def respond(self, request: Request) -> Any:
        early = self.process_request(request)
        return early if early is not None else self.application

    def process_request(self, request: Request) -> Response | None:
        """A response ends the request here; None passes it on."""
        return None


class Router(Application):
    """Chooses by path and method: `Router({"/x/<int:id>": handler})`, or `(path, method) -> handler`.

    A handler is called with the request and what the path holds, and returns what `respond` may return.
    """

    def __init__(self, routes: dict[Any, Callable[..., Any]]) -> None:
        rules = []
        for key, handler in routes.items():
            path, methods = (key[0], [key[1]]) if isinstance(key, tuple) else (key, None)
            rules.append(Rule(path, endpoint=handler, methods=methods))
        self._map = Map(rules)

    def respond(self, request: Request) -> Any:
        handler, values = self._map.bind_to_environ(request.environ).match()
        return handler(request, **values)


class Guard:
    """Refuses with 403 what a page of somebody else makes the user's browser send; programs do not notice it.

    A socket on loopback is no boundary for a browser, and a signature none where the keys are those of the
    documentation. `names`: what the service may be called, for one that is reached over loopback alone (a foreign
    name that leads here is DNS rebinding); None: anything. `for_pages` is false for what no page has to do with.
    """

    def __init__(self, application: WSGIApp, names: Sequence[str] | None, for_pages: bool) -> None:
        self._application = application
        self._names = names
        self._for_pages = for_pages

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        reason = self.objection(environ)
        if not reason:
            return self._application(environ, start_response)
        body = f"{reason}\n".encode()
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def objection(self, environ: Mapping[str, Any]) -> str:
        """Why a request is refused; empty where it is not."""
        host, origin = environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")
        if host is not None and self._names is not None and not is_here(host, self._names):
            return "this service is not called that; --allowed_hosts names what else it is called"
        if origin is not None and urlsplit(origin).netloc != host:
            return "a page of another site sent this"
        if not self._for_pages and environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
            return "a page of another site sent this"
        return ""


def is_here(host: str, names: Sequence[str]) -> bool:
    """Whether a Host header means this machine: localhost and what is below it, an address of loopback, or a name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in names or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Health:
    """Answers `/healthz` with 200 while `state()` is `ready` and 503 otherwise; all else goes on."""

    path = "/healthz"

    def __init__(self, application: WSGIApp, state: Callable[[], str]) -> None:
        self._application = application
        self._state = state

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != self.path:
            return self._application(environ, start_response)
        state = self._state()
        status = "200 OK" if state == "ready" else "503 Service Unavailable"
        body = f"{state}\n".encode()
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
