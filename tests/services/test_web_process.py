"""A web service as the real process that it is: signals, readiness, drain, exit codes."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nova.testing import ServiceProcess

MODULE = """
import ctypes
import resource
import time
from nova import flags, green, manager
flags.DEFINE_integer("max_files", 0, "limit of descriptors")
flags.DEFINE_string("greeting", "hello", "what is said", mutable=True)
FLAGS = flags.FLAGS

class Web(manager.WebManager):
    def init_host(self):
        if FLAGS.max_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (FLAGS.max_files, FLAGS.max_files))
        if FLAGS.greeting == "fail":
            raise RuntimeError("the disk is on fire")
        if FLAGS.greeting == "hold":
            ctypes.PyDLL(None).usleep(2_000_000)
        if FLAGS.greeting == "slow":
            green.sleep(60)

    def cleanup_host(self):
        print("cleaned up", flush=True)

    def wsgi_app(self):
        return self.answer

    def answer(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/slow":
            print("slow began", flush=True)
            green.sleep(float(environ["QUERY_STRING"]))
        if path == "/spin":
            print("spin began", flush=True)
            until = time.monotonic() + float(environ["QUERY_STRING"])
            while time.monotonic() < until:
                pass
        if path == "/fail":
            raise ValueError("a bug")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [FLAGS.greeting.encode()]
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "web.py").write_text(MODULE)
    return str(tmp_path)


def web(folder: str, *arguments: str, **more: object) -> ServiceProcess:
    return ServiceProcess("nova-web", "--web_manager=web.Web", *arguments, pythonpath=folder, **more)  # type: ignore[arg-type]


def port_of(service: ServiceProcess) -> int:
    service.wait_log("listens on port ")
    return int(service.log.split("listens on port ")[1].split()[0])


@contextlib.contextmanager
def connected(service: ServiceProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(service), timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def is_refused_soon(port: int) -> bool:
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            # It was in the queue when the listener closed.
            continue
    return False


def get(service: ServiceProcess, path: str) -> tuple[int, str]:
    with connected(service) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_it_is_ready_when_it_listens_and_keeps_its_pid_in_the_foreground(folder: str) -> None:
    with web(folder) as service:
        service.wait_ready()
        assert f"MAINPID={service.pid}" in service.said
        assert get(service, "/") == (200, "hello")
        assert get(service, "/healthz") == (200, "ready\n")
        service.wait_log('"GET / HTTP/1.1" 200')
        assert "/healthz" not in service.log
        assert not list(service.state_path.parent.rglob("*.pid"))


CLOSED = """
import os, sys
for fd in (0, 1, 2):
    os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "nova", "nova-web", "--web_manager=web.Web", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("word", "code"), [("--verbose", 0), ("--pidfile=x", 100)])
def test_a_service_without_standard_streams_lives_and_ends_as_any_other(
    folder: str, word: str, code: int
) -> None:
    script = Path(folder, "closed.py")
    script.write_text(CLOSED)
    with ServiceProcess(str(script), word, pythonpath=folder) as service:
        if code == 0:
            service.wait_ready()
            assert {os.readlink(f"/proc/{service.pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
            service.signal("TERM")
        assert service.wait() == code


def test_term_gives_every_request_that_has_begun_its_answer_and_exits_clean(folder: str) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy, connected(service) as idle:
        idle.request("GET", "/")
        idle.getresponse().read()
        busy.request("GET", "/slow?0.5")
        service.wait_log("slow began")
        service.signal("TERM")
        service.wait_said("STOPPING=1")
        assert idle.sock.recv(1) == b""
        response = busy.getresponse()
        assert (response.status, response.read(), response.headers["Connection"]) == (200, b"hello", "close")
        assert service.wait() == 0
        assert "cleaned up" in service.log


def test_no_new_connection_is_accepted_while_it_drains(folder: str) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy:
        port = port_of(service)
        busy.request("GET", "/slow?1")
        service.wait_log("slow began")
        service.signal("TERM")
        service.wait_said("STOPPING=1")
        service.wait_log("stops: 1 in flight")
        assert is_refused_soon(port)
        assert busy.getresponse().status == 200
        assert service.wait() == 0


def test_a_request_past_the_drain_timeout_is_named_gets_503_and_the_exit_code_is_four(folder: str) -> None:
    with web(folder, "--drain_timeout=0.3") as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/slow?30")
        service.wait_log("slow began")
        service.signal("TERM")
        assert busy.getresponse().status == 503
        assert service.wait() == 4
        assert "still waits for wsgi GET /slow for" in service.log


@pytest.mark.parametrize("signals", [("QUIT",), ("INT", "INT")])
def test_quit_or_a_second_int_ends_at_once_with_three(folder: str, signals: tuple[str, ...]) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/slow?30")
        service.wait_log("slow began")
        for name in signals:
            service.signal(name)
            if len(signals) > 1 and name is signals[0]:
                service.wait_said("STOPPING=1")
        began_s = time.monotonic()
        assert service.wait() == 3, service.log
        assert time.monotonic() - began_s < 2


def test_twenty_terms_are_one_drain(folder: str) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/slow?0.5")
        service.wait_log("slow began")
        for _ in range(20):
            service.signal("TERM")
        assert busy.getresponse().status == 200
        assert service.wait() == 0
        assert service.log.count("TERM: stopping") == 1


def test_term_while_the_manager_starts_ends_at_once_and_clean(folder: str) -> None:
    with web(folder, "--greeting=slow") as service:
        service.wait_log("starts")
        service.signal("TERM")
        began_s = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - began_s < 2
        assert "Traceback" not in service.log


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2])
def test_term_at_any_moment_of_the_start_ends_without_a_traceback(folder: str, after_s: float) -> None:
    with web(folder) as service:
        time.sleep(after_s)  # the moment is what is tested
        service.signal("TERM")
        code = service.wait()
        # Before Python runs its first line, the kernel's default ends the process.
        assert code == 0 or (code == -15 and service.log == "")
        assert "Traceback" not in service.log


def test_what_init_host_raises_is_exit_one_with_the_reason(folder: str) -> None:
    with web(folder, "--greeting=fail") as service:
        assert service.wait() == 1
        assert "nova-web cannot start: RuntimeError: the disk is on fire" in service.log
        with pytest.raises(TimeoutError):
            service.wait_ready(0.1)


def test_a_port_that_is_taken_is_exit_one_and_named(folder: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with web(folder, f"--web_listen_port={port}") as service:
            assert service.wait() == 1
            assert f"cannot listen on 127.0.0.1:{port}" in service.log


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--gretting=x"], "did you mean --greeting?"),
        (["--pidfile=/x"], "--pidfile was removed: your supervisor does this"),
        (["--web_manager=web.Nothing"], "cannot load web.Nothing"),
        (["--web_manager="], "set --web_manager"),
        (["--drain_timeout=soon"], "--drain_timeout: expected a number, got 'soon'"),
        (["word"], "takes flags only"),
    ],
)
def test_bad_flags_are_exit_hundred_so_that_nobody_restarts(folder: str, arguments: list[str], text: str) -> None:
    with web(folder, *arguments) as service:
        assert service.wait() == 100
        assert text in service.log
        assert "Traceback" not in service.log


def test_hup_reads_mutable_flags_again_and_drops_nothing(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("greeting = 'first'\ndrain_timeout = 5\n")
    with web(folder, f"--config_file={path}") as service, connected(service.wait_ready()) as busy:
        assert get(service, "/") == (200, "first")
        busy.request("GET", "/slow?0.4")
        service.wait_log("slow began")
        path.write_text("greeting = 'second'\ndrain_timeout = 6\n")
        service.signal("HUP")
        service.wait_log("reloaded; changed: greeting")
        assert get(service, "/") == (200, "second")
        assert busy.getresponse().status == 200
        assert "change with a restart only: drain_timeout" in service.log
        service.wait_said("RELOADING=1")


def test_usr1_shows_stacks_and_requests_in_flight_even_in_a_busy_loop(folder: str) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/spin?3")
        service.wait_log("spin began")
        service.signal("USR1")
        service.wait_log("==== end")
        assert "==== USR1" in service.log
        assert "wsgi GET /spin for" in service.log
        assert "web.py" in service.log
        service.signal("KILL")


def test_c_code_that_stops_all_threads_is_shown_also_in_the_first_second(folder: str) -> None:
    with web(folder, "--hub_limit=0.3", env={"NOVA_GREETING": "hold"}) as service:
        service.wait_ready()
        assert "Timeout (" in service.log
        assert "in init_host" in service.log


def test_a_hub_that_stands_still_is_shown_once_with_the_place(folder: str) -> None:
    with web(folder, "--hub_limit=0.9") as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/spin?2.5")
        service.wait_log("==== the hub stands still for")
        assert busy.getresponse().status == 200
        assert service.log.count("==== the hub stands still") == 1
        assert "web.py" in service.log


def test_quit_ends_a_process_whose_hub_is_stuck(folder: str) -> None:
    with web(folder) as service, connected(service.wait_ready()) as busy:
        busy.request("GET", "/spin?60")
        service.wait_log("spin began")
        service.signal("QUIT")
        assert service.wait(6) == 3


def test_usr2_turns_debug_messages_on_and_off(folder: str) -> None:
    with web(folder) as service:
        service.wait_ready()
        service.signal("USR2")
        service.wait_log("debug messages are on")
        service.signal("USR2")
        service.wait_log("debug messages are off")


def test_a_request_that_raises_is_500_and_the_service_goes_on(folder: str) -> None:
    with web(folder) as service:
        assert get(service.wait_ready(), "/fail") == (500, "internal error\n")
        assert get(service, "/") == (200, "hello")
        assert "ValueError: a bug" in service.log


def test_a_passed_socket_serves_across_a_restart_without_a_refused_connection(folder: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as held:
        port = held.getsockname()[1]
        answers = []
        for _ in range(2):
            with web(folder, listen=held) as service:
                service.wait_ready()
                answers.append(get(service, "/"))
                service.signal("TERM")
                assert service.wait() == 0
            waiting = socket.create_connection(("127.0.0.1", port))
            waiting.close()
        assert answers == [(200, "hello")] * 2


def test_running_out_of_descriptors_sheds_clients_and_the_server_goes_on(folder: str) -> None:
    with web(folder, "--max_files=40") as service:
        service.wait_ready()
        port = port_of(service)
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(60)]
        answered = 0
        for client in reversed(clients):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                answered += client.recv(100).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
            client.close()
        assert answered >= 30
        deadline_s = time.monotonic() + 10
        while len(os.listdir(f"/proc/{service.pid}/fd")) > 30:  # until it has noticed that they left
            assert time.monotonic() < deadline_s
        assert get(service, "/") == (200, "hello")
        assert service.log.count("out of file descriptors") >= 1
        service.signal("TERM")
        assert service.wait() == 0


def test_json_logs_are_one_object_a_line(folder: str) -> None:
    import json

    with web(folder, "--log_format=json") as service:
        service.wait_ready()
        service.signal("TERM")
        service.wait()
        lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
        assert {"time", "level", "logger", "message", "pid"} <= set(lines[0])


def test_dump_flags_shows_every_flag_of_the_manager_with_its_source(folder: str) -> None:
    with web(folder, "--dump_flags", env={"NOVA_GREETING": "hi"}) as service:
        assert service.wait() == 0
        assert "greeting = 'hi'  # environment NOVA_GREETING, mutable" in service.log
        assert "web_manager = 'web.Web'  # command line" in service.log
