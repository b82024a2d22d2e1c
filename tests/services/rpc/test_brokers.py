"""Which brokers the tests of RPC run on, and what becomes of those of a broker that is not there."""

from __future__ import annotations

import socket

import pytest

from tests.services.rpc.conftest import require_rabbitmq


@pytest.mark.parametrize(
    ("required", "verdict"),
    [
        ("", pytest.skip.Exception),
        ("postgresql", pytest.skip.Exception),
        ("postgresql,rabbitmq", pytest.fail.Exception),
    ],
)
def test_a_broker_that_is_missing_skips_its_tests_unless_it_is_required(
    monkeypatch: pytest.MonkeyPatch, required: str, verdict: type[BaseException]
) -> None:
    monkeypatch.setenv("NOVA_TEST_REQUIRE", required)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened on
        with pytest.raises(verdict, match="no RabbitMQ"):
            require_rabbitmq(nobody.getsockname()[1])


def test_a_broker_that_answers_is_tested() -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        require_rabbitmq(somebody.getsockname()[1])
