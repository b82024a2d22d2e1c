"""Programs: the list of what Twisted's process pool was tested for, and the traps since."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path

import pytest
from nova import green, processutils
from nova.processutils import Process, ProcessExecutionError, ProcessPool, execute, simple_execute


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", "-c", code)


def test_stdout_and_stderr_are_returned_apart() -> None:
    assert execute("sh", "-c", "echo out; echo err >&2") == ("out\n", "err\n")


def test_bytes_are_returned_as_they_came() -> None:
    assert execute("printf", r"\377\0", text=False) == (b"\xff\0", b"")


def test_words_reach_the_program_whole_and_no_shell_reads_them() -> None:
    assert execute("printf", "%s.", "a b", "$HOME", ";", "") == ("a b.$HOME.;..", "")
    assert simple_execute("printf '%s.' 'a b' c;d") == ("a b.c;d.", "")


def test_a_bad_exit_code_is_an_error_with_everything_in_it() -> None:
    with pytest.raises(ProcessExecutionError) as caught:
        execute("sh", "-c", "echo out; echo err >&2; exit 3")
    error = caught.value
    assert isinstance(error, IOError)
    assert (error.exit_code, error.stdout, error.stderr) == (3, "out\n", "err\n")
    assert error.cmd == "sh -c 'echo out; echo err >&2; exit 3'"


@pytest.mark.parametrize(("check", "fails"), [(True, True), (False, False), ([0], True), ([0, 3], False)])
def test_which_exit_codes_are_fine_is_said_by_the_caller(check: bool | list[int], fails: bool) -> None:
    if fails:
        with pytest.raises(ProcessExecutionError):
            execute("sh", "-c", "exit 3", check_exit_code=check)
    else:
        execute("sh", "-c", "exit 3", check_exit_code=check)


def test_unexpected_output_on_stderr_is_an_error_when_asked_for() -> None:
    with pytest.raises(ProcessExecutionError, match="wrote to stderr"):
        execute("sh", "-c", "echo err >&2", check_stderr=True)


def test_a_program_that_a_signal_ended_has_a_negative_exit_code() -> None:
    with pytest.raises(ProcessExecutionError) as caught:
        execute("sh", "-c", "kill -9 $$")
    assert caught.value.exit_code == -9


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program-at-all", "/", "nul\0byte"])
def test_a_program_that_cannot_be_run_is_the_same_kind_of_error(program: str) -> None:
    with pytest.raises(ProcessExecutionError, match="cannot run") as caught:
        execute(program)
    assert caught.value.exit_code is None


def test_input_reaches_the_program_and_large_output_does_not_block() -> None:
    data = os.urandom(3 * 1024 * 1024)
    assert execute("cat", process_input=data, text=False) == (data, b"")


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert execute("true", process_input="x" * 1_000_000) == ("", "")


def test_environment_and_directory_are_the_callers(tmp_path: Path) -> None:
    path = os.environ["PATH"]
    assert execute("sh", "-c", "echo $A$HOME", env={"A": "a", "PATH": path}) == ("a\n", "")
    assert execute("sh", "-c", "echo $A", addl_env={"A": "b"}) == ("b\n", "")
    assert execute("pwd", cwd=str(tmp_path)) == (f"{tmp_path}\n", "")


def test_a_long_process_is_killed_with_all_it_started_and_the_error_says_so() -> None:
    began_s = time.monotonic()
    with pytest.raises(ProcessExecutionError, match=r"timed out after 0.3 s") as caught:
        execute("sh", "-c", "sleep 60 & echo $!; sleep 60", timeout=0.3)
    assert time.monotonic() - began_s < 1.3
    grandchild = int(caught.value.stdout)
    deadline_s = time.monotonic() + 5
    while is_alive(grandchild):
        assert time.monotonic() < deadline_s
        green.sleep(0.01)


def test_a_grandchild_that_keeps_the_pipes_open_is_not_waited_for() -> None:
    began_s = time.monotonic()
    stdout, _ = execute("sh", "-c", "sleep 60 & echo $!")
    assert time.monotonic() - began_s < 2
    os.kill(int(stdout), 9)


def test_the_hub_turns_while_a_program_runs() -> None:
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            green.sleep(0.01)

    ticking = green.spawn(tick)
    execute("sleep", "0.3")
    ticking.kill()
    assert len(ticks) > 15


def test_a_greenlet_that_is_killed_takes_its_program_along() -> None:
    started: list[Process] = []

    def run() -> None:
        started.append(Process("sleep", "60"))
        started[0].wait()

    running = green.spawn(run)
    while not started:
        green.sleep(0)
    green.sleep(0)
    running.kill()
    assert not Path(f"/proc/{started[0].pid}").exists()


def test_a_handle_can_be_killed_by_another_greenlet() -> None:
    process = Process("sleep", "60")
    waiting = green.spawn(process.wait)
    green.sleep(0)
    process.kill()
    assert waiting.wait() == (-9, b"", b"")


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "count"
    command = f'echo x >> {file}; test "$(wc -l < {file})" -ge 3'
    execute("sh", "-c", command, attempts=3)
    assert file.read_text() == "x\n" * 3
    with pytest.raises(ProcessExecutionError):
        execute("false", attempts=2)


def test_a_pool_never_runs_more_than_its_size_and_serves_in_order(tmp_path: Path) -> None:
    pool, running, most, order = ProcessPool(2), 0, 0, []

    def run(number: int) -> None:
        nonlocal running, most
        with pool.slot():
            running += 1
            most = max(most, running)
            order.append(number)
            execute("true")
            running -= 1

    greenlets = [green.spawn(run, number) for number in range(8)]
    for greenlet in greenlets:
        greenlet.wait()
    assert most == 2
    assert order == sorted(order)


def test_a_pool_gives_back_its_place_whatever_happens() -> None:
    pool = ProcessPool(1)
    for command in (("false",), ("/no/such/program",), ("sleep", "60")):
        with pytest.raises(ProcessExecutionError):
            pool.execute(*command, timeout=0.05)
    assert pool.simple_execute("echo still here") == ("still here\n", "")


def test_the_shared_pool_is_one() -> None:
    assert processutils.SharedPool() is processutils.SharedPool()
    assert processutils.SharedPool().execute("echo", "x") == ("x\n", "")


def test_fifty_at_once_and_fifty_in_a_row_leave_nothing_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool = ProcessPool(4)
    at_once = [green.spawn(pool.execute, "echo", str(number)) for number in range(50)]
    assert [greenlet.wait()[0] for greenlet in at_once] == [f"{number}\n" for number in range(50)]
    for number in range(50):
        assert execute("echo", str(number))[0] == f"{number}\n"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_patched_process_runs_programs_as_well(tmp_path: Path) -> None:
    code = """
        from nova import green; green.patch()
        from nova import processutils
        pool = processutils.ProcessPool(4)
        many = [green.spawn(pool.execute, "echo", str(n)) for n in range(30)]
        assert [one.wait()[0] for one in many] == [f"{n}\\n" for n in range(30)]
        assert processutils.execute("cat", process_input="x" * 1000000)[0] == "x" * 1000000
        try:
            processutils.execute("sleep", "60", timeout=0.1)
        except processutils.ProcessExecutionError as error:
            print(error.description)
    """
    services = str(Path(processutils.__file__).parent.parent)
    stdout, _ = execute(
        sys.executable, "-c", textwrap.dedent(code), addl_env={"PYTHONPATH": services}, timeout=20
    )
    assert stdout == "timed out after 0.1 s and was killed\n"


def test_the_exit_of_the_program_is_not_the_exit_of_the_service() -> None:
    with pytest.raises(ProcessExecutionError):
        execute(*python("import sys; sys.exit(7)"))
