"""nova-broker's figures: start, idleness, throughput with the journal, latency, redelivery, a million messages.

    python tests/bench/broker.py [--only NAME ...] [--messages N] [--million N]

Broker and client share one core, so that a throughput is a cost: 1 s / (the CPU time of both), which is what is
printed, whatever else the machine does meanwhile; times are by the clock. Each line says what must be reached and
what was; the exit code is 1 where something was missed.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"
sys.path.insert(0, str(SERVICES))

from nova.broker import properties, protocol  # noqa: E402

START = "import sys; from nova.broker.main import main; sys.exit(main(sys.argv[1:]))"
DURABLE, EXCLUSIVE = 2, 4
BODY = bytes(200)
DEADLINE_S = 120.0


class BrokerProcess:
    """nova-broker on a free port; `ready_s` is the time from exec to READY=1."""

    def __init__(self, *flags: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="nova-broker-")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(b"")
            notified.settimeout(DEADLINE_S)
            address = "@" + notified.getsockname()[1:].decode()
            state = self.folder.name
            begun_s = time.monotonic()
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    START,
                    "--port=0",
                    f"--state_path={state}",
                    f"--port_file={state}/port",
                    *flags,
                ],
                env={**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": str(SERVICES)},
                stderr=subprocess.DEVNULL,
            )
            notified.recv(100)
            self.ready_s = time.monotonic() - begun_s
        self.port = int(Path(state, "port").read_text())
        self.password = Path(state, "broker", "password").read_text().strip()

    def status(self, name: str) -> int:
        """A number from /proc/PID/status (memory in kB)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(dict(line.split(":", 1) for line in text.splitlines())[name].split()[0])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)
        self.folder.cleanup()


class Work:
    """The processor time of this process and of the broker since it was made."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._clock = (~broker.process.pid << 3) | 2  # what clock_getcpuclockid(3) computes on Linux
        self._begun_s = 0.0
        self._begun_s = self.used_s()

    def used_s(self) -> float:
        return time.process_time() + time.clock_gettime(self._clock) - self._begun_s

    def rate(self, count: int) -> float:
        """How many one core would carry in a second, after `count` of them."""
        return count / self.used_s()


class Client:
    """The least that talks AMQP, so that it is the broker that is measured."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", broker.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._splitter = protocol.FrameSplitter()
        self._frames: list[protocol.Frame] = []
        login = b"\0nova\0" + broker.password.encode()
        arguments = bytes(4) + protocol.shortstr("PLAIN") + protocol.longstr(login) + protocol.shortstr("en_US")
        self.socket.sendall(protocol.PROTOCOL_HEADER)
        self.call(0, protocol.CONNECTION_START_OK, arguments)
        self.call(None, 0)
        tune = protocol.U16.pack(2047) + protocol.U32.pack(protocol.FRAME_MAX) + protocol.U16.pack(0)
        self.send(protocol.method(0, protocol.CONNECTION_TUNE_OK, tune))
        self.call(0, protocol.CONNECTION_OPEN, protocol.shortstr("/") + b"\0\0")
        self.call(1, protocol.CHANNEL_OPEN, b"\0")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def frame(self) -> protocol.Frame:
        while not self._frames:
            self._frames = self._splitter.feed(self.socket.recv(1 << 18))[::-1]
        return self._frames.pop()

    def call(self, channel: int | None, method: int, arguments: bytes = b"") -> bytes:
        """Sends a method (unless `channel` is None) and returns the next method's payload."""
        if channel is not None:
            self.send(protocol.method(channel, method, arguments))
        while True:
            kind, _, payload = self.frame()
            if kind == protocol.METHOD:
                return payload

    def declare(self, name: str, flags: int) -> int:
        """The number of messages that are ready."""
        arguments = b"\0\0" + protocol.shortstr(name) + bytes((flags,)) + bytes(4)
        payload = self.call(1, protocol.QUEUE_DECLARE, arguments)
        return int(protocol.U32.unpack_from(payload, 5 + payload[4])[0])

    def consume(self, name: str, no_ack: bool, prefetch: int = 0) -> None:
        self.call(1, protocol.BASIC_QOS, protocol.U32.pack(0) + protocol.U16.pack(prefetch) + b"\0")
        flags = b"\2" if no_ack else b"\0"
        self.call(1, protocol.BASIC_CONSUME, b"\0\0" + protocol.shortstr(name) + b"\0" + flags + bytes(4))

    def delivery(self) -> int:
        """Waits for the next message; its delivery tag."""
        while True:
            kind, _, payload = self.frame()
            if kind == protocol.METHOD and protocol.U32.unpack_from(payload)[0] == protocol.BASIC_DELIVER:
                return int(protocol.U64.unpack_from(payload, 5 + payload[4])[0])


def publications(queue: str, count: int) -> bytes:
    """Persistent messages, each with an id of its own."""
    method = protocol.U32.pack(protocol.BASIC_PUBLISH) + bytes(3) + protocol.shortstr(queue) + b"\0"
    frames = []
    for _ in range(count):
        given = {"content_type": "application/json", "delivery_mode": 2, "message_id": os.urandom(16).hex()}
        header = properties.encode(len(BODY), given)
        frames.append(protocol.content(1, method, header, BODY, protocol.FRAME_MAX))
    return b"".join(frames)


def ready(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    times = []
    for _ in range(5):
        broker = BrokerProcess()
        times.append(broker.ready_s)
        rss_mib = broker.status("VmRSS") / 1024
        broker.stop()
    yield "ready after exec, s (median of 5)", statistics.median(times), "<=", 0.15
    yield "resident when idle, MiB", rss_mib, "<=", 30


def idle(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    broker = BrokerProcess()
    client = Client(broker)
    client.declare("idle", EXCLUSIVE)
    client.consume("idle", no_ack=False)
    select.select([], [], [], 0.5)  # its last turn may not be over yet
    before = broker.status("voluntary_ctxt_switches")
    select.select([], [], [], 5.0)
    yield "wake-ups a second when idle", (broker.status("voluntary_ctxt_switches") - before) / 5, "<=", 0
    broker.stop()


def publish(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    broker = BrokerProcess()
    client = Client(broker)
    client.declare("durable", DURABLE)
    chunk = publications("durable", 100)
    work = Work(broker)
    for _ in range(options.messages // 100):
        client.send(chunk)
    ready = client.declare("durable", DURABLE)
    speed = work.rate(options.messages)
    assert ready == options.messages, f"{ready} of {options.messages} arrived"
    yield "publish/s, 200 B, durable queue, journal", speed, ">=", 40_000
    yield "  resident bytes a message", (broker.status("VmRSS") - 25_000) * 1024 / ready, "<=", 600
    yield from consume(options, broker, client)
    yield from confirmed(options, broker, client)
    broker.stop()


def consume(
    options: argparse.Namespace, broker: BrokerProcess, client: Client
) -> Iterator[tuple[str, float, str, float]]:
    work = Work(broker)
    client.consume("durable", no_ack=False, prefetch=200)
    for count in range(1, options.messages + 1):
        tag = client.delivery()
        if not count % 50:
            client.send(protocol.method(1, protocol.BASIC_ACK, protocol.U64.pack(tag) + b"\1"))
    yield "consume/s, acked in fifties", work.rate(options.messages), ">=", 20_000


def confirmed(
    options: argparse.Namespace, broker: BrokerProcess, client: Client
) -> Iterator[tuple[str, float, str, float]]:
    client.declare("confirmed", DURABLE)
    client.call(1, protocol.CONFIRM_SELECT, b"\0")
    count, chunk = options.messages // 4, publications("confirmed", 100)
    work = Work(broker)
    for _ in range(count // 100):
        client.send(chunk)
    confirmed = 0
    while confirmed < count:
        confirmed = protocol.U64.unpack_from(client.call(None, 0), 4)[0]
    yield "publish/s, the same, confirmed (synced)", work.rate(count), ">=", 10_000


def latency(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    broker = BrokerProcess()
    sender, receiver = Client(broker), Client(broker)
    receiver.declare("hop", EXCLUSIVE)
    receiver.consume("hop", no_ack=True)
    message, times = publications("hop", 1), []
    for _ in range(300):
        time.sleep(0.005)
        begun_s = time.perf_counter()
        sender.send(message)
        receiver.delivery()
        times.append((time.perf_counter() - begun_s) * 1000)
    times.sort()
    yield "one hop, idle, ms (p50)", times[150], "<=", 0.6
    yield "  p99", times[297], "<=", 5
    broker.stop()


def redelivery(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    broker = BrokerProcess()
    times = []
    for turn in range(5):
        other, queue = Client(broker), f"shared-{turn}"
        other.declare(queue, DURABLE)
        pid, gone = _holder(broker, queue)
        other.send(publications(queue, 10))
        assert os.read(gone, 1) == b"h"
        other.call(1, protocol.BASIC_QOS, bytes(6) + b"\0")
        other.consume(queue, no_ack=True)
        begun_s = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            other.delivery()
        times.append((time.perf_counter() - begun_s) * 1000)
        os.waitpid(pid, 0)
        os.close(gone)
    yield "redelivery of 10 after kill -9 of a consumer, ms", statistics.median(times), "<=", 10
    broker.stop()


def _holder(broker: BrokerProcess, queue: str) -> tuple[int, int]:
    """A process that consumes ten messages, says so, and keeps them; its pid and what it says it with."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        client = Client(broker)
        client.consume(queue, no_ack=False, prefetch=10)
        for _ in range(10):
            client.delivery()
        os.write(writer, b"h")
        signal.pause()
    os.close(writer)
    return pid, reader


def million(options: argparse.Namespace) -> Iterator[tuple[str, float, str, float]]:
    broker = BrokerProcess("--memory_limit_mib=2048")
    client, probe = Client(broker), Client(broker)
    client.declare("many", DURABLE)
    chunk, pauses, worked = publications("many", 100), [], []

    def ask() -> None:
        begun_s, work = time.perf_counter(), Work(broker)
        probe.call(1, protocol.BASIC_QOS, bytes(6) + b"\0")
        pauses.append(time.perf_counter() - begun_s)
        worked.append(work.used_s())

    for number in range(options.million // 100):
        client.send(chunk)
        if not number % 20:
            ask()
    assert client.declare("many", DURABLE) == options.million
    yield f"{options.million:,} queued messages, resident MB", broker.status("VmRSS") * 1024 / 1e6, "<=", 600
    client.consume("many", no_ack=False, prefetch=1000)
    for count in range(1, options.million + 1):
        tag = client.delivery()
        if not count % 500:
            client.send(protocol.method(1, protocol.BASIC_ACK, protocol.U64.pack(tag) + b"\1"))
        if not count % 5000:
            ask()
    yield "  longest wait of another client, ms", max(pauses) * 1000, "<=", 200
    yield "  the longest by processor time, ms", max(worked) * 1000, "<=", 200
    broker.stop()


BENCHES = {each.__name__: each for each in (ready, idle, publish, latency, redelivery, million)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--core", type=int, default=1)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core % (os.cpu_count() or 1)})
    missed = 0
    for name in options.only:
        for what, value, sense, goal in BENCHES[name](options):
            is_met = value <= goal if sense == "<=" else value >= goal
            missed += not is_met
            print(f"{what:52} {value:12,.3f}   {sense} {goal:<10,g} {'ok' if is_met else 'MISSED'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
