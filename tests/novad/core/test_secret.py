"""Secrets by name and by shape."""

from __future__ import annotations

import pytest

from novad.core.secret import is_secret, shown, shown_words


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "PGPASSWORD", "DB_PASS", "passwd", "API_TOKEN", "token", "AWS_SECRET_ACCESS_KEY", "SSH_PRIVATE_KEY",
     "api-key", "GOOGLE_CREDENTIALS", "BASIC_AUTH", "PASSPHRASE"],
)  # fmt: skip
def test_a_secret_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["PATH", "AUTHOR", "KEYBOARD", "COMPASS_DIR", "LEVEL", "BYPASS", "PORT", "HOME"])
def test_what_is_no_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("DB_PASSWORD", "x", "(hidden, 1 character)"),
        ("DB_PASSWORD", "", ""),
        ("URL", "amqp://me:pw@host/ and http://a:b@c", "amqp://***@host/ and http://***@c"),
        ("URL", "http://host/a@b:c", "http://host/a@b:c"),
        ("PATH", "/bin", "/bin"),
    ],
)
def test_a_value_as_it_is_shown(name: str, value: str, text: str) -> None:
    assert shown(name, value) == text


def test_a_variable_that_the_project_marks_is_a_secret_too() -> None:
    assert is_secret("ORDERS_DSN", ["*_DSN"])
    assert not is_secret("ORDERS_DSN", ["DSN"])
    assert shown("ORDERS_DSN", "abc", ("ORDERS_*",)) == "(hidden, 3 characters)"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("api --token=x --port 1", "api --token=*** --port 1"),
        ("api --db-password x y", "api --db-password *** y"),
        ("api --token --verbose y", "api --token --verbose y"),
        ("env API_KEY=x LEVEL=info api", "env API_KEY=*** LEVEL=info api"),
        ("api -url=http://a:b@c/", "api -url=http://***@c/"),
    ],
)
def test_a_command_line_as_it_is_shown(argv: str, text: str) -> None:
    assert shown_words(argv.split()) == text.split()
