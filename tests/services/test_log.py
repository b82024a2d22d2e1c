"""Log lines: what they look like, and a pipe that nobody reads."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nova import context, green, log, signals, watchdog


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def record(message: str = "hello", error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("a bug")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("nova.x", logging.WARNING, "file", 1, message, None, info)


def test_a_line_holds_level_logger_request_and_message() -> None:
    with context.use(context.RequestContext(request_id="req-7")):
        assert log.TextFormatter(has_time=False).format(record()) == "WARNING nova.x [req-7] hello"
    stamped = log.TextFormatter(has_time=True).format(record())
    assert stamped.endswith("Z WARNING nova.x hello")


def test_an_exception_follows_its_line() -> None:
    text = log.TextFormatter(has_time=False).format(record(error=True))
    assert text.startswith("WARNING nova.x hello\nTraceback")
    assert text.endswith("ValueError: a bug")


def test_json_is_one_object_with_the_traceback_inside() -> None:
    found = json.loads(log.JsonFormatter().format(record("a\nb", error=True)))
    assert (found["level"], found["logger"], found["message"]) == ("warning", "nova.x", "a\nb")
    assert found["traceback"].endswith("ValueError: a bug")
    assert "request_id" not in found


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    writer = log.Writer(pipe[1])
    for number in range(100):
        writer.write(b"line %d\n" % number)
    assert os.read(pipe[0], 65536) == b"".join(b"line %d\n" % number for number in range(100))


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_loses_the_oldest_only(pipe: tuple[int, int]) -> None:
    writer = log.Writer(pipe[1], max_bytes=10_000)
    began_s = time.monotonic()
    for number in range(20_000):
        writer.write(b"line %06d\n" % number)
    assert time.monotonic() - began_s < 1.5
    assert writer.dropped > 10_000
    received = b""
    os.set_blocking(pipe[0], False)
    with green.Timeout(10):
        while b"line 019999\n" not in received:
            with contextlib.suppress(BlockingIOError):
                received += os.read(pipe[0], 65536)
            green.sleep(0)
    lines = received.splitlines()
    assert lines[0] == b"line 000000"
    assert any(b"log lines were dropped" in line for line in lines)
    numbers = [int(line.split()[1]) for line in lines if line.startswith(b"line ")]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_stacks_for_a_pipe_that_nobody_reads_are_dropped(pipe: tuple[int, int], is_blocking: bool) -> None:
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b"x" * 512)
    os.set_blocking(pipe[1], is_blocking)
    began_s = time.monotonic()
    watchdog.Watchdog(signals.Signals(lambda name: None), fd=pipe[1]).dump("USR1")
    assert time.monotonic() - began_s < 2


def test_flush_at_the_end_waits_for_a_slow_reader_but_not_for_ever(pipe: tuple[int, int]) -> None:
    writer = log.Writer(pipe[1])
    for _ in range(100):
        writer.write(b"x" * 1023 + b"\n")
    began_s = time.monotonic()
    writer.flush(0.2)
    assert 0.15 < time.monotonic() - began_s < 1


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = log.Writer(pipe[1])
    for _ in range(10):
        writer.write(b"line\n")
    writer.flush(0.1)


def test_native_threads_may_log_while_the_hub_does(tmp_path: Path) -> None:
    code = """
        from nova import green; green.patch()
        import logging
        from nova import log
        log.setup()
        LOG = logging.getLogger("t")
        def many(name):
            for number in range(200):
                LOG.warning("%s %d", name, number)
        threads = [green.spawn(green.tpool.execute, many, f"thread{n}") for n in range(3)]
        many("hub")
        for thread in threads:
            thread.wait()
        log.flush()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(log.__file__).parent.parent), "NOVAD_SERVICE": "t"},
    )
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 800
    for name in ("hub", "thread0", "thread1", "thread2"):
        assert [f"WARNING t {name} {number}" for number in range(200)] == [
            line for line in lines if line.startswith(f"WARNING t {name} ")
        ]
