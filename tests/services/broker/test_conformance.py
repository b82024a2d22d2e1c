"""nova-broker leads every recorded conversation as RabbitMQ 3.10 led it.

The transcripts hold RabbitMQ's answers. They are replayed against nova-broker always, and against RabbitMQ where one
answers, so that a transcript cannot say what RabbitMQ does not. Those in `silence.txt` end with RabbitMQ hanging up
without a word, for which it takes 3 s each time; it has to lead them only where NOVA_TEST_REQUIRE names it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.services.broker import transcript

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
SCENARIOS = [
    pytest.param(lines, id=f"{path.stem}: {title}")
    for path in FILES
    for title, lines in transcript.scenarios(path).items()
]


IS_REQUIRED = "rabbitmq" in os.environ.get("NOVA_TEST_REQUIRE", "")


@pytest.fixture(scope="session")
def rabbitmq() -> tuple[str, int, str, str]:
    try:
        socket.create_connection(transcript.RABBITMQ[:2], timeout=1).close()
    except OSError as error:
        if IS_REQUIRED:
            pytest.fail(f"no RabbitMQ on 127.0.0.1:5672: {error}")
        pytest.skip(f"no RabbitMQ on 127.0.0.1:5672: {error}")
    return transcript.RABBITMQ


@pytest.mark.parametrize("lines", SCENARIOS)
def test_nova_broker_answers_as_recorded(lines: list[str], shared_broker: Any) -> None:
    address = ("127.0.0.1", shared_broker.port, "guest", "guest")
    assert transcript.replay(lines, address) == lines


@pytest.mark.parametrize("lines", SCENARIOS)
def test_rabbitmq_answers_as_recorded(
    lines: list[str], rabbitmq: tuple[str, int, str, str], request: pytest.FixtureRequest
) -> None:
    if "[silence:" in request.node.name and not IS_REQUIRED:
        pytest.skip("RabbitMQ takes 3 s to hang up without a word")
    assert transcript.replay(lines, rabbitmq) == lines


def test_a_different_answer_is_found(shared_broker: Any) -> None:
    lines = ["a1 > queue.declare queue=~q passive=1", "a1 < queue.declare-ok queue=~q"]
    heard = transcript.replay(lines, ("127.0.0.1", shared_broker.port, "guest", "guest"))
    assert heard != lines
    assert "404" in heard[1]
