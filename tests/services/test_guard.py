"""What a browser is made to send by a page of somebody else is refused; programs and pages of one's own are served."""

from __future__ import annotations

import pytest
from nova.webapp import Guard, is_here


def answer(names: list[str] | None = None, for_pages: bool = True, **headers: str) -> str:
    """The status of a request with these headers; `names` as of a service on loopback."""
    said: list[str] = []

    def application(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    list(Guard(application, names, for_pages)(environ, lambda status, _: said.append(status)))
    return said[0][:3]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8773",
        "localhost",
        "localhost:8773",
        "LOCALHOST",
        "[::1]:8773",
        "127.1.2.3",
        "photos.localhost:3333",
        "box",
    ],
)
def test_a_name_of_this_machine_is_served(host: str) -> None:
    assert answer(["box"], host=host) == "200"


@pytest.mark.parametrize(
    "host",
    ["evil", "evil:8773", "127.0.0.1.evil", "localhost.evil", "0.0.0.0", "localhost.", "", "127.0.0.1,evil", "[::1",
     "@evil", "127.0.0.1@evil", "10.0.0.1", "notlocalhost"],
)  # fmt: skip
def test_a_foreign_name_that_leads_to_loopback_is_refused(host: str) -> None:
    assert answer(["box"], host=host) == "403"
    assert answer(None, host=host) == "200"
    assert not is_here(host, ())


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:8773", "200"), ("http://evil", "403"), ("null", "403"), ("http://127.0.0.1:8000", "403"),
     ("http://127.0.0.1:8773.evil", "403"), ("", "403")],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(origin: str, status: str) -> None:
    assert answer([], host="127.0.0.1:8773", origin=origin) == status
    assert answer(None, host="127.0.0.1:8773", origin=origin) == status


@pytest.mark.parametrize(
    ("site", "status"), [("none", "200"), ("same-origin", "200"), ("cross-site", "403"), ("same-site", "403")]
)
def test_what_is_not_for_pages_takes_no_get_from_them(site: str, status: str) -> None:
    assert answer([], for_pages=False, host="localhost", sec_fetch_site=site) == status
    assert answer([], for_pages=True, host="localhost", sec_fetch_site=site) == "200"


def test_a_program_without_any_of_these_headers_is_served() -> None:
    assert answer([], for_pages=False) == "200"
