"""WSGI applications: Application, Middleware and Router with Nova's names, on Werkzeug; and `/healthz`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
