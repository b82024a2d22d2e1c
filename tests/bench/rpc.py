"""RPC's figures: calls and casts a second through `rpc.call` and a method of a real Manager in a real Service.

    python tests/bench/rpc.py [--seconds S] [--brokers nova-broker,rabbitmq] [--stacks fast,kombu,nameko,oslo]
                              [--peers PYTHON]

Caller, service and nova-broker share one core, so that a throughput is a cost: 1 s / (the CPU time of all three), which
`of_one_core` computes from their processor times, whatever else the machine does meanwhile. A RabbitMQ that runs
already keeps its own cores, which flatters its rows. nameko and oslo.messaging run where the interpreter PYTHON
(default: this one) has them. Each line says what must be reached; exit code 1 where it was not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOPIC = os.environ.get("BENCH_TOPIC", "bench")  # one for each stack: each declares its queues otherwise
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/"
# (stack, broker, figure) -> what must be reached, a second
GOALS = {
    ("fast", "nova-broker", "calls_1"): 2500,
    ("fast", "nova-broker", "calls_50"): 9000,
    ("fast", "rabbitmq", "calls_50"): 7000,
    ("fast", "nova-broker", "casts"): 20000,
}
PEERS = ("nameko", "oslo")
TIMES_PEER = 10
ONE_HOP_P50_MS = 0.6


def measure(call: Callable[[], Any], spawn: Callable, callers: int, seconds: float) -> dict[str, float]:
    """Calls a second and latencies with so many callers at a time."""
    latencies: list[float] = []
    begun_s = time.perf_counter()
    until_s = begun_s + seconds
    meter = Meter()

    def loop() -> None:
        while (at_s := time.perf_counter()) < until_s:
            call()
            latencies.append(time.perf_counter() - at_s)

    for caller in [spawn(loop) for _ in range(callers)]:
        caller.wait()
    elapsed_s = time.perf_counter() - begun_s
    latencies.sort()
    count = len(latencies)
    return {
        "rate": count / elapsed_s,
        "p50_ms": latencies[count // 2] * 1e3,
        "p99_ms": latencies[int(count * 0.99)] * 1e3,
        **meter.costs_us(count),
    }


class Meter:
    """The processor time, without that of the machine's other work, of this process and of those in BENCH_PIDS."""

    def __init__(self) -> None:
        pids = json.loads(os.environ.get("BENCH_PIDS", "{}"))
        self._pids: dict[str, int] = {"caller": os.getpid(), **pids}
        self._before = self._used_s()

    def _used_s(self) -> dict[str, float]:
        return {name: time.clock_gettime(_cpu_clock(pid)) for name, pid in self._pids.items()}

    def costs_us(self, count: int) -> dict[str, float]:
        """Microseconds of each process for one of `count` operations; where the broker's time is known, also how many
        one core would carry in a second.
        """
        used_s = self._used_s()
        costs = {f"{name}_us": (used_s[name] - self._before[name]) / count * 1e6 for name in self._pids}
        return {**costs, "of_one_core": 1e6 / sum(costs.values())} if "broker" in self._pids else costs


def _cpu_clock(pid: int) -> int:
    """The id of a process's own clock: what clock_getcpuclockid(3) computes on Linux."""
    return (~pid << 3) | 2


# nova


def nova_flags(url: str, stack: str) -> None:
    from nova import flags
    from nova.rpc import options  # noqa: F401, defines --rpc_transport

    flags.FLAGS(
        ["bench", f"--broker={url}", f"--rpc_transport={stack}", f"--state_path={os.environ['BENCH_STATE']}"]
    )


def serve_nova(url: str, stack: str) -> None:
    from nova import green

    green.patch()
    nova_flags(url, stack)
    from nova import service

    serving = service.Service.create(
        host="h1", binary="nova-bench", topic=TOPIC, manager=f"{Path(__file__).stem}_manager.Bench"
    )
    serving.start()
    print("ready", flush=True)
    green.sleep(3600)


def drive_nova(url: str, stack: str, seconds: float) -> dict[str, Any]:
    from nova import green

    green.patch()
    nova_flags(url, stack)
    from nova import context, rpc

    caller = context.RequestContext(user_id="user", project_id="project")
    message = {"method": "echo", "args": {"text": "hello"}}

    def call() -> None:
        assert rpc.call(caller, TOPIC, message) == "hello"

    for _ in range(50):
        call()
    results: dict[str, Any] = {
        "calls_1": measure(call, green.spawn, 1, seconds),
        "calls_50": measure(call, green.spawn, 50, seconds),
        "idle": measure_idle(call, green.sleep),
    }
    before = rpc.call(caller, TOPIC, {"method": "count"})
    sent = [0]

    def cast() -> None:
        rpc.cast(caller, TOPIC, {"method": "notice", "args": {"text": "hello"}})
        sent[0] += 1

    begun_s, meter = time.perf_counter(), Meter()
    measure(cast, green.spawn, 200, seconds)
    while rpc.call(caller, TOPIC, {"method": "count"}) - before < sent[0]:
        green.sleep(0.01)
    results["casts"] = {"rate": sent[0] / (time.perf_counter() - begun_s), **meter.costs_us(sent[0])}
    rpc.cleanup()
    return results


def measure_idle(call: Callable[[], Any], sleep: Callable[[float], None]) -> dict[str, float]:
    """Latencies of one call at a time with a pause between: what an idle cluster feels."""
    latencies = []
    for _ in range(150):
        sleep(0.01)
        at_s = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - at_s)
    latencies.sort()
    return {"p50_ms": latencies[75] * 1e3, "one_hop_p50_ms": latencies[75] * 1e3 / 2}


# nameko


def serve_nameko(url: str, stack: str) -> None:
    import eventlet

    eventlet.monkey_patch()
    from nameko.containers import ServiceContainer
    from nameko.rpc import rpc

    class Bench:
        name = TOPIC

        @rpc
        def echo(self, text: str) -> str:
            return text

    container = ServiceContainer(Bench, config={"AMQP_URI": url, "max_workers": 100})
    container.start()
    print("ready", flush=True)
    container.wait()


def drive_nameko(url: str, stack: str, seconds: float) -> dict[str, Any]:
    import eventlet

    eventlet.monkey_patch()
    from nameko.standalone.rpc import ClusterRpcProxy

    def loop(callers: int) -> dict[str, float]:
        # The standalone proxy belongs to one thread: concurrency is calls that are under way together.
        with ClusterRpcProxy({"AMQP_URI": url}) as proxy:
            latencies: list[float] = []
            meter = Meter()
            begun_s = time.perf_counter()
            while time.perf_counter() - begun_s < seconds:
                at_s = time.perf_counter()
                for reply in [proxy[TOPIC].echo.call_async("hello") for _ in range(callers)]:
                    reply.result()
                latencies += [time.perf_counter() - at_s] * callers
            elapsed_s = time.perf_counter() - begun_s
            costs_us = meter.costs_us(len(latencies))
        latencies.sort()
        return {
            "rate": len(latencies) / elapsed_s,
            "p50_ms": latencies[len(latencies) // 2] * 1e3,
            "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
            **costs_us,
        }

    return {"calls_1": loop(1), "calls_50": loop(50)}


# oslo.messaging


def serve_oslo(url: str, stack: str) -> None:
    import eventlet

    eventlet.monkey_patch()
    import oslo_messaging
    from oslo_config import cfg

    class Bench:
        def echo(self, ctxt: dict, text: str) -> str:
            return text

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url.replace("amqp://", "rabbit://"))
    target = oslo_messaging.Target(topic=TOPIC, server="h1")
    server = oslo_messaging.get_rpc_server(transport, target, [Bench()], executor="eventlet")
    server.start()
    eventlet.sleep(1.0)  # start() returns before the consumers exist
    print("ready", flush=True)
    server.wait()


def drive_oslo(url: str, stack: str, seconds: float) -> dict[str, Any]:
    import eventlet

    eventlet.monkey_patch()
    import oslo_messaging
    from oslo_config import cfg

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url.replace("amqp://", "rabbit://"))
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=TOPIC))

    def call() -> None:
        assert client.call({}, "echo", text="hello") == "hello"

    call()
    return {
        "calls_1": measure(call, eventlet.spawn, 1, seconds),
        "calls_50": measure(call, eventlet.spawn, 50, seconds),
    }


# All together


class ChildFailed(Exception):
    """A stack does not run here."""


class Child:
    """This file again, in another role; ends with the block."""

    def __init__(self, python: str, role: str, *arguments: str) -> None:
        environ = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'services'}:{Path(__file__).parent}",
            "PYTHONWARNINGS": "ignore",
        }
        self.process = subprocess.Popen(
            [python, __file__, "--role", role, *arguments],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("BENCH_VERBOSE") else None,
        )

    def __enter__(self) -> Child:
        if self.line() != b"ready\n":
            self.__exit__()
            raise ChildFailed("did not start; BENCH_VERBOSE=1 shows why")
        return self

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()


def run_stack(stack: str, url: str, python: str, seconds: float, pids: dict[str, int]) -> dict[str, Any]:
    """`pids`: processes whose time counts too."""
    with Child(python, "serve", "--stacks", stack, "--url", url) as service:
        os.environ["BENCH_PIDS"] = json.dumps({"service": service.process.pid, **pids})
        driver = Child(python, "drive", "--stacks", stack, "--url", url, "--seconds", str(seconds))
        line = driver.line()
        driver.process.wait()
        return json.loads(line) if line else {}


def remove_queues(topic: str) -> None:
    """Leave nothing on a RabbitMQ that others use."""
    import amqp

    keys = (topic, f"{topic}.h1", f"{topic}+nested", f"{topic}.h1+nested", f"{topic}+suspects", f"rpc-{topic}")
    with amqp.Connection("127.0.0.1:5672", "guest", "guest", login_method="PLAIN") as connection:
        for key in keys:
            connection.channel().queue_delete(key)
        connection.channel().exchange_delete(f"{topic}_fanout")


def has(python: str, stack: str) -> bool:
    module = {"nameko": "nameko", "oslo": "oslo_messaging"}.get(stack)
    if module is None:
        return True
    if python == sys.executable:
        return importlib.util.find_spec(module) is not None
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def report(stack: str, broker: str, results: dict[str, Any]) -> bool:
    """Prints the rows of one stack; False where a goal was missed."""
    is_good = True
    for figure, values in results.items():
        goal = GOALS.get((stack, broker, figure))
        text = "  ".join(f"{name} {value:,.2f}" for name, value in values.items())
        verdict = ""
        if goal is not None:
            # What one core carries, where that is known: others on the machine slow the rate, not the cost.
            reached = values.get("of_one_core", values["rate"]) >= goal
            is_good = is_good and reached
            verdict = f"   must reach {goal:,}/s: {'yes' if reached else 'NO'}"
        elif figure == "idle" and (stack, broker) == ("fast", "nova-broker"):
            reached = values["one_hop_p50_ms"] <= ONE_HOP_P50_MS
            is_good = is_good and reached
            verdict = f"   must be <= {ONE_HOP_P50_MS} ms: {'yes' if reached else 'NO'}"
        print(f"{broker:12} {stack:7} {figure:9} {text}{verdict}", flush=True)
    return is_good


def cost_us(values: dict[str, float]) -> float:
    """Of one operation, all processes that were measured together."""
    return sum(value for name, value in values.items() if name.endswith("_us"))


def compare(broker: str, found: dict[str, dict[str, Any]]) -> bool:
    """Ours against the peers on the same broker, fifty calls at a time, by the processor time of what we counted."""
    is_good = True
    for peer in PEERS:
        if "fast" in found and found.get(peer):
            times = cost_us(found[peer]["calls_50"]) / cost_us(found["fast"]["calls_50"])
            is_good = is_good and times >= TIMES_PEER
            verdict = "yes" if times >= TIMES_PEER else "NO"
            print(
                f"{broker:12} fast costs {times:.1f} x less than {peer}   must reach {TIMES_PEER} x: {verdict}",
                flush=True,
            )
    return is_good


def run_all(options: argparse.Namespace) -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sys.path[:0] = [str(ROOT), str(ROOT / "services")]
    from tests.services.broker.conftest import BrokerProcess

    is_good = True
    for broker in options.brokers.split(","):
        with tempfile.TemporaryDirectory(prefix="nova-bench-") as folder:
            os.environ["BENCH_STATE"] = folder
            # oslo.messaging declares queues that RabbitMQ refuses from 4.3 on, and nova-broker unless told otherwise.
            own = BrokerProcess(Path(folder), "--no-strict") if broker == "nova-broker" else None
            try:
                found: dict[str, dict[str, Any]] = {}
                for stack in options.stacks.split(","):
                    python = options.peers if stack in PEERS else sys.executable
                    if not has(python, stack):
                        print(f"{broker:12} {stack:7} not importable, skipped", flush=True)
                        continue
                    url = own.url if own else RABBITMQ
                    os.environ["BENCH_TOPIC"] = f"bench_{os.getpid()}_{stack}"
                    try:
                        pids = {"broker": own.process.pid} if own else {}
                        found[stack] = run_stack(stack, url, python, options.seconds, pids)
                    except ChildFailed as error:
                        print(f"{broker:12} {stack:7} {error}", flush=True)
                        continue
                    if not own:
                        remove_queues(os.environ["BENCH_TOPIC"])
                    is_good = report(stack, broker, found[stack]) and is_good
                is_good = compare(broker, found) and is_good
            finally:
                if own:
                    own.terminate()
    return 0 if is_good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--brokers", default="nova-broker,rabbitmq")
    parser.add_argument("--stacks", default="fast,kombu,nameko,oslo")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--role", choices=("serve", "drive"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        return run_all(options)
    kind = options.stacks if options.stacks in PEERS else "nova"
    if options.role == "serve":
        globals()[f"serve_{kind}"](options.url, options.stacks)
    else:
        print(json.dumps(globals()[f"drive_{kind}"](options.url, options.stacks, options.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
