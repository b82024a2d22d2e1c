"""nova-api: the EC2 API."""

from __future__ import annotations

from nova.api.application import Application
from nova.db import images, session
from nova.manager import WebManager


class ApiManager(WebManager):
    """Holds nothing: what the API knows is in the database."""

    # Its actions come by GET as well.
    is_for_pages = False

    def init_host(self) -> None:
        session.sync()
        with session.begin() as s:
            images.ensure_default(s)

    def wsgi_app(self) -> Application:
        return Application()
