"""What a person reads, as golden files at 80 and 120 columns, with and without colour.

`NOVAD_WRITE_GOLDEN=1 pytest ...` writes them anew; look at the difference before you keep it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from novad.client.feed import Feed
from novad.client.render.escape import harmless
from novad.client.render.hints import Facts, hints_for, mentioned_ports
from novad.client.render.lines import LineStyle, format_line
from novad.client.render.paint import Paint, clip, visible_length
from novad.client.render.progress import about, block, plain_line, row_line, status_line, still_waiting, summary
from novad.client.render.status import detail_rows, status_details, status_table
from novad.client.render.svstat import svstat
from novad.client.render.why import WhyStyle, why_report
from novad.client.render.words import count_states, duration, parse_duration, size, whereabouts
from novad.client.startup import Startup, brought_up_to_date
from novad.core.errors import UsageError
from tests.novad.client.fakes import document, process
from tests.novad.goldens import SHAPE, golden, shape


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def nova() -> list[dict[str, Any]]:
    mib = 1024 * 1024
    return [
        process("broker", pid=4011, uptime_s=724.0, cpu_percent=1.2, rss_bytes=92 * mib, ports={"amqp": 5672}),
        process("db-sync", "done", uptime_s=0.9, want="once"),
        process("scheduler", pid=4019, uptime_s=722.0, cpu_percent=0.1, rss_bytes=48 * mib),
        process("api", pid=4020, uptime_s=721.0, cpu_percent=0.4, rss_bytes=61 * mib,
                ports={"http": 8774, "metadata": 41207}),
        process("compute.1", pid=4025, uptime_s=720.0, cpu_percent=2.0, rss_bytes=55 * mib, ports={"console": 6080}),
        process("compute.2", "backoff", restarts=4, exit_code=1, retry_in_s=3.2, ports={"console": 6081},
                note="exit 1, retry in 3.2s"),
        process("network", "starting", pid=4027, uptime_s=0.4, restarts=1, cpu_percent=0.2, rss_bytes=47 * mib),
        process("volume", "stopped", want="down", note="by novad stop"),
        process("metadata", "waiting", note="after compute.2",
                waiting_for=[{"name": "compute.2", "condition": "ready", "state": "backoff"}]),
    ]  # fmt: skip


def test_a_note_that_is_what_the_service_says_is_shown_once() -> None:
    rows = dict(detail_rows(process("api", note="api ready", status_text="api ready"), None))
    assert (rows["note"], rows["says"]) == ("api ready", "")
    assert dict(detail_rows(process("api", note="paused", status_text="busy"), None))["says"] == "busy"


@SHAPE
def test_the_status_table(width: int, colour: bool) -> None:
    lines = status_table(document(*nova(), project="nova-dev"), width, Paint(colour))
    assert max(map(visible_length, lines)) <= width
    golden(f"status-{shape(width, colour)}", lines)


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_a_table_fits_and_says_what_it_left_out(width: int) -> None:
    lines = status_table(document(*nova()), width, Paint(False))
    start = next(number for number, line in enumerate(lines) if line.startswith("SERVICE"))
    table = [line for line in lines[start:] if not line.startswith("novad why") and "-o wide" not in line]
    assert max(map(len, table)) <= max(width, 40)
    hidden = {"PID", "UPTIME", "RST", "CPU%", "RSS", "PORTS"} - set(table[0].split())
    assert all(name in lines[-1] for name in hidden)


def test_a_disk_that_does_not_keep_up_is_named() -> None:
    told = document(*nova())
    told["daemon"]["disk"] = {"waiting": 0, "late_s": 0.0}
    assert not any("disk" in line for line in status_table(told, 80, Paint(False)))
    told["daemon"]["disk"] = {"waiting": 12, "late_s": 3.2}
    said = "the disk is slow: 12 writes of novad wait, the oldest for 3.2s"
    assert said in status_table(told, 80, Paint(False))


def test_chosen_columns_are_shown_whatever_the_width() -> None:
    lines = status_table(document(*nova()), 30, Paint(False), ("service", "ports", "note"))
    assert ["SERVICE", "PORTS", "NOTE"] in [line.split() for line in lines]


def test_a_note_of_a_child_cannot_break_the_table() -> None:
    lines = status_table(document(process("api", note="a\nb\x1b[2J")), 80, Paint(False))
    assert "ab[2J" in lines[2]


def crashed() -> dict[str, Any]:
    lines = [
        "Traceback (most recent call last):",
        '  File "nova/virt/fake.py", line 131, in __init__',
        "    os.makedirs(CONF.instances_path)",
        "PermissionError: [Errno 13] Permission denied: '/var/lib/nova/compute.2/instances'",
    ]
    exit_value: dict[str, Any] = {
        "run": 4, "pid": 4102, "at": 1763917867.0, "lived_s": 0.31, "exit_code": 1, "signal": None,
        "sent_by_novad": False, "was_ready": False, "error": None, "lines": lines,
    }  # fmt: skip
    earlier = [exit_value | {"run": 3, "lived_s": 0.30}, exit_value | {"run": 2, "lived_s": 0.33}]
    return {
        "name": "compute.2", "state": "backoff", "want": "up", "pid": None, "since_s": 1.1, "cause": "exit 1",
        "waiting_for": [], "awaiting": None, "argv": ["nova-compute", "--host", "node2"], "cwd": "/home/me/src/nova",
        "exits": [exit_value, *earlier], "retry_in_s": 3.2, "failures": 3, "give_up_after": 5, "hurts": ["metadata"],
        "log": "/home/me/src/nova/.novad/logs/compute.2.log",
    }  # fmt: skip


def why(entry: dict[str, Any], width: int = 80, colour: bool = False, facts: Facts | None = None) -> list[str]:
    style = WhyStyle(Paint(colour), width, lines=3, home="/home/me")
    return why_report(entry, hints_for(entry, facts or Facts()), style)


@SHAPE
def test_why_a_service_crashed(width: int, colour: bool) -> None:
    lines = why(crashed(), width, colour)
    golden(f"why-{shape(width, colour)}", lines)


def test_a_killed_process_is_not_said_to_be_stopped_by_novad() -> None:
    entry = crashed() | {"state": "ready"}
    entry["exits"] = [
        entry["exits"][0] | {"exit_code": None, "signal": "SIGKILL", "was_ready": True, "lines": []}
    ]
    text = "\n".join(why(entry))
    assert "killed by SIGKILL (9), not sent by novad, after 0.31s" in text
    assert "ready before" in text


def test_a_stop_by_novad_is_never_a_crash() -> None:
    entry = crashed() | {"state": "ready", "failures": 0}
    entry["exits"] = [entry["exits"][0] | {"exit_code": None, "signal": "SIGTERM", "sent_by_novad": True}]
    text = "\n".join(why(entry))
    assert "nothing is wrong with it" in text
    assert "stopped by novad with SIGTERM (15)" in text
    assert "crashed" not in text


def test_a_waiting_process_names_what_it_waits_for_and_its_state() -> None:
    entry = crashed() | {"state": "waiting", "exits": [], "retry_in_s": None, "hurts": []}
    entry["waiting_for"] = [{"name": "db", "condition": "done", "state": "failed"}]
    lines = why(entry)
    assert lines[0] == "compute.2 is waiting for 1.1s for db:done (failed)"
    assert lines[-1].strip() == "novad why db"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["OSError: [Errno 98] Address already in use: ('127.0.0.1', 8774)"],
            "port 8774 is held by pid 7 (python)",
        ),
        (["ModuleNotFoundError: No module named 'kombu'"], "module `kombu` is not installed"),
        (["> x.py(3)f()", "-> y()", "(Pdb) "], "breakpoint"),
        (["bdb.BdbQuit"], "breakpoint"),
        (
            ["ConnectionRefusedError: [Errno 111] connection refused: 127.0.0.1:5672"],
            "that is `broker`, which is failed",
        ),
        (["FileNotFoundError: [Errno 2] No such file or directory: 'etc/x'"], "`etc/x` does not exist"),
        (["something else"], ""),
    ],
)
def test_known_errors_get_the_hint_of_those_who_know_them(lines: list[str], expected: str) -> None:
    entry = crashed()
    entry["exits"][0]["lines"] = lines
    facts = Facts({8774: "pid 7 (python)"}, {5672: ("broker", "failed")})
    sentences = [hint.sentence for hint in hints_for(entry, facts)]
    assert any(expected in sentence for sentence in sentences)
    assert all(hint.command for hint in hints_for(entry, facts))


@pytest.mark.parametrize(
    ("argv", "line"),
    [(["serve", "--port", "8774"], "OSError: [Errno 98] Address already in use"),
     (["serve"], "OSError: [Errno 98] Address already in use: ('127.0.0.1', 8774)"),
     (["sh", "-c", "serve 127.0.0.1:8774"], "bind: address already in use")],
)  # fmt: skip
def test_who_holds_a_port_is_told_wherever_its_number_stands(argv: list[str], line: str) -> None:
    entry = crashed() | {"argv": argv}
    entry["exits"][0]["lines"] = ['  File "a.py", line 1307, in bind', line]
    facts = Facts(
        {number: "pid 7 (python)" for number in [8774] if number in mentioned_ports(entry) or "8774" in line}
    )
    assert hints_for(entry, facts)[0].sentence.startswith("port 8774 is held by pid 7 (python)")


def test_a_refused_connection_is_that_of_the_service_whose_port_the_command_names() -> None:
    entry = crashed() | {"argv": ["worker", "--broker", "amqp://guest@127.0.0.1:5672/"]}
    entry["exits"][0]["lines"] = ["ConnectionRefusedError: [Errno 111] Connection refused"]
    hint = hints_for(entry, Facts({}, {5672: ("broker", "failed")}))[0]
    assert (hint.sentence, hint.command) == (
        "nobody answered on port 5672: that is `broker`, which is failed", "novad why broker",
    )  # fmt: skip


def test_the_line_number_of_a_long_path_is_seen_at_any_width() -> None:
    entry = crashed()
    path = "/home/me/" + "a-long-name/" * 9 + "manager.py"
    entry["exits"][0]["lines"] = [
        f'  File "{path}", line 131, in __init__',
        "ValueError: " + "very " * 60 + "wrong",
    ]
    shown = why(entry, 80)
    assert "line 131, in __init__" in " ".join(line.removeprefix("  │").strip() for line in shown)
    assert any(line.endswith("very wrong") for line in shown)
    assert sum(line.startswith("  │") for line in shown) <= 10
    assert max(len(line) for line in shown if line.startswith("  │")) <= 80


def test_a_single_line_is_one_line() -> None:
    paint = Paint(False)
    assert Feed(None, paint, "novad").take([{"type": "skipped", "name": "a", "lines": 1}]) == [
        "a: 1 line skipped"
    ]


def test_lines_of_a_child_in_a_report_are_harmless() -> None:
    entry = crashed()
    entry["exits"][0]["lines"] = ["\x1b]0;owned\x07 boom"]
    assert "\x1b" not in "\n".join(why(entry))


def starting() -> Startup:
    after = {"db-sync": ("broker",), "api": ("db-sync",), "volume": ("db-sync",)}
    startup = Startup(("broker", "db-sync", "api", "volume", "compute"), after, 100.0)
    startup.update(process("broker", "starting"), 100.0)
    startup.update(process("db-sync", "waiting", waiting_for=[{"name": "broker", "condition": "ready"}]), 100.0)
    startup.update(process("api", "waiting", waiting_for=[{"name": "db-sync", "condition": "done"}]), 100.0)
    startup.update(process("volume", "waiting", waiting_for=[{"name": "db-sync", "condition": "done"}]), 100.0)
    startup.update(process("compute", "backoff", exit_code=1, note="exit 1, retry in 1.0s"), 100.5)
    startup.update(process("broker", url="amqp://guest:guest@127.0.0.1:5672"), 101.8)
    startup.update(process("db-sync", "starting"), 101.8)
    startup.probe("db-sync", "tcp 127.0.0.1:5432: connection refused (try 4)")
    return startup


@SHAPE
def test_the_progress_of_a_start(width: int, colour: bool) -> None:
    startup, paint = starting(), Paint(colour)
    lines = [whereabouts("nova.toml", ".novad/logs") + about("nova-dev", 5, paint)]
    lines += [row_line(startup.rows["broker"], 7, 102.9, paint)]
    lines += [clip(line, width - 1) for line in block(startup, 102.9, 10, paint)]
    lines.append(
        status_line([item.process for item in startup.rows.values()], "api ready", "? keys", width, paint)
    )
    assert max(map(visible_length, lines)) <= width
    golden(f"progress-{shape(width, colour)}", lines)


def test_a_process_that_ran_before_is_shown_with_its_own_time() -> None:
    startup = Startup(("db", "api"), {"api": ("db",)}, 100.0)
    startup.update(process("db", ready_in_s=1.8), 100.0)
    startup.update(process("api", "starting"), 100.0)
    assert row_line(startup.rows["db"], 3, 100.0, Paint(False)).split() == ["●", "db", "ready", "1.8s"]
    startup.update(process("api"), 101.0)
    assert startup.critical_path() == [("api", 1.0)]


def test_what_a_start_waits_for_is_shown_whenever_it_was_said() -> None:
    startup = Startup(("db",), {}, 100.0)
    startup.probe("db", "log: no line yet that matches 'up'")
    startup.update(process("db", "starting"), 100.0)
    assert row_line(startup.rows["db"], 3, 100.0, Paint(False)).endswith("log: no line yet that matches 'up'")
    told = {"type": "probe", "name": "db", "text": "tcp 127.0.0.1:80: refused"}
    assert brought_up_to_date([process("db", "starting")], [told])["db"]["awaiting"] == told["text"]
    seen_later = Startup(("db",), {}, 100.0)
    seen_later.update(process("db", "starting", awaiting="tcp 127.0.0.1:80: refused"), 100.0)
    assert row_line(seen_later.rows["db"], 3, 100.0, Paint(False)).endswith("tcp 127.0.0.1:80: refused")


def test_without_a_terminal_a_start_is_told_line_by_line() -> None:
    startup = starting()
    assert plain_line(startup.rows["broker"], 1.8, 7) == "01.8 broker   ready"
    assert still_waiting(startup, 110.0) == (
        "still waiting for db-sync (starting 8.2s: tcp 127.0.0.1:5432: connection refused (try 4)), "
        "api (after db-sync:done), volume (after db-sync:done), compute (backoff 9.5s: exit 1, retry in 1.0s)"
    )


def test_a_block_that_is_too_high_says_how_many_more() -> None:
    lines = block(starting(), 102.0, 2, Paint(False))
    assert len(lines) == 2
    assert lines[1] == " · and 3 more"


def test_the_summary_names_the_critical_path() -> None:
    startup = starting()
    startup.update(process("db-sync", "done"), 102.7)
    startup.update(process("api", "starting"), 102.7)
    startup.update(process("compute"), 103.0)
    startup.update(process("api", url="http://127.0.0.1:8774/"), 105.8)
    startup.update(process("volume", "starting"), 102.7)
    startup.update(process("volume"), 103.1)
    assert startup.is_good
    first = "4 ready, 1 done in 6.4s (critical: broker 1.8 → db-sync 0.9 → api 3.1)"
    broker = "broker  amqp://***@127.0.0.1:5672"
    assert summary(startup, 106.4, Paint(False), 10_000) == [
        first,
        f"  {broker}",
        "  api     http://127.0.0.1:8774/",
    ]
    narrow = summary(startup, 106.4, Paint(False), 60)
    assert narrow[:2] == ["4 ready, 1 done in 6.4s", "  critical: broker 1.8 → db-sync 0.9 → api 3.1"]
    assert max(map(len, narrow)) <= 60


def test_the_summary_has_the_only_url_on_its_line_where_it_fits() -> None:
    startup = Startup(("api",), {}, 0.0)
    startup.update(process("api", url="http://127.0.0.1:8774/"), 1.0)
    assert summary(startup, 1.0, Paint(False), 80) == ["1 ready in 1.0s · http://127.0.0.1:8774/"]
    assert summary(startup, 1.0, Paint(False), 30) == ["1 ready in 1.0s", "  api  http://127.0.0.1:8774/"]


def test_a_start_is_settled_when_what_is_left_waits_for_what_has_failed() -> None:
    startup = Startup(("db", "api", "web"), {}, 0.0)
    startup.update(process("db", "starting"), 0.0)
    startup.update(process("api", "waiting", waiting_for=["db"]), 0.0)
    startup.update(process("web", "waiting", waiting_for=[{"name": "api", "condition": "ready"}]), 0.0)
    assert not startup.is_settled
    startup.update(process("db", "failed", exit_code=1), 1.0)
    assert startup.is_settled
    assert [row.name for row in startup.blocked()] == ["api", "web"]
    assert summary(startup, 1.0, Paint(False), 80)[0].startswith("1 failed, 2 blocked in 1.0s")


def test_replicas_are_waited_for_under_the_name_of_their_service() -> None:
    startup = Startup(("compute.1", "compute.2", "api"), {}, 0.0)
    startup.update(process("compute.1"), 0.0)
    startup.update(process("compute.2", "failed"), 0.0)
    startup.update(process("api", "waiting", waiting_for=["compute"]), 0.0)
    assert startup.is_settled


def test_details_of_one_process() -> None:
    more = {"argv": ["nova-api", "--port", "8774"], "cwd": "/src", "since_s": 61.0}
    lines = status_details(nova()[3], more, Paint(False))
    assert lines[0] == "● api  ready for 1m01s, pid 4020"
    assert "  command   nova-api --port 8774" in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00s"), (0.314, "0.31s"), (0.999, "1.0s"), (4.25, "4.2s"), (9.96, "10s"), (59.4, "59s"), (59.7, "1m00s"),
     (724, "12m04s"), (3600, "1h00m"), (11220, "3h07m"), (187200, "2d04h"), (None, "\N{EN DASH}"), (-1, "0.00s")],
)  # fmt: skip
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1.5s", 1.5), ("250ms", 0.25), ("2m", 120.0), ("1h30m", 5400.0), ("1d", 86400)],
)
def test_durations_as_users_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "-1", "1 2", "1h30", "nan", "inf", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


def test_sizes_have_three_digits() -> None:
    values = [0, 999, 1024, 812 * 1024, 92 * 2**20, int(1.9 * 2**30), 5 * 2**40, None]
    assert [size(value) for value in values] == ["0B", "999B", "1K", "812K", "92M", "1.9G", "5.0T", "\N{EN DASH}"]


def test_states_are_counted_with_the_good_ones_first() -> None:
    assert count_states(nova()) == "4 ready · 1 starting · 1 waiting · 1 backoff · 1 stopped · 1 done"


def test_svstat_prints_the_line_of_daemontools() -> None:
    assert svstat(nova()[0]) == "broker: up (pid 4011) 724 seconds"
    assert svstat({**nova()[7], "since_s": 12.3}) == "volume: down 12 seconds"
    assert (
        svstat(process("x", pid=1, uptime_s=2.5, state="stopping", want="down"))
        == "x: up (pid 1) 2 seconds, stopping"
    )


def test_colours_of_a_service_do_not_depend_on_the_others_and_replicas_differ() -> None:
    paint = Paint(True)
    assert paint.service("api", "x") == paint.service("api.1", "x")
    assert paint.service("api.1", "x") != paint.service("api.2", "x")


def test_clipping_counts_cells_and_closes_colours() -> None:
    assert clip("\x1b[31mabcdef\x1b[0m", 4) == "\x1b[31mabc\x1b[0m…\x1b[0m"
    assert clip("abc", 3) == "abc"


LINE = b"2026-11-23T17:01:02.123456Z e "


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x", "\\x1b]0;title\\x07x"),
        (b"\x1b[2J\x1b[8mhidden", "\\x1b[2Jhidden"),
        (b"bad \xff byte", "bad \\xff byte"),
        (b"c1 \xc2\x9b2J", "c1 \\x9b2J"),
        ("right-to-left \u202e txt".encode(), "right-to-left \\u202e txt"),
        ("gr\u00fc\u00df \u00e9 \u4e2d".encode(), "gr\u00fc\u00df \u00e9 \u4e2d"),
        (b"10%\r50%\r100%", "100%"),
        (b"tab\tstays", "tab\tstays"),
    ],
)
def test_children_cannot_do_anything_to_a_terminal(data: bytes, shown: str) -> None:
    assert format_line("api", LINE + data, LineStyle(time="none")) == shown


def test_colours_of_a_child_survive_where_colour_is_on_and_end_with_the_line() -> None:
    shown = format_line("api", LINE + b"\x1b[1;31mred", LineStyle(Paint(True), time="none"))
    assert shown == "\x1b[1;31mred\x1b[0m"
    assert "\x1b[8m" not in format_line("api", LINE + b"\x1b[8mhidden", LineStyle(Paint(True), time="none"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\nlines", "plain\nlines"),
        ("\x1b[31mred\x1b[0m ours", "\x1b[31mred\x1b[0m ours"),
        ("\x1b[31mtheirs\nnext", "\x1b[31mtheirs\x1b[0m\nnext"),
        ("\x1b]0;title\x07\n\x1b[2J", "\\x1b]0;title\\x07\n\\x1b[2J"),
        ("\x1b[8mhidden\r\x9b2J\u202e\ud800", "hidden\\x0d\\x9b2J\\u202e\\ud800"),
    ],
)
def test_what_goes_to_a_terminal_only_prints(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


def test_bytes_for_a_file_are_what_the_child_wrote() -> None:
    shown = format_line("api", LINE + b"\x1b[2J\xff", LineStyle(time="none", for_terminal=False))
    assert shown.encode("utf-8", "surrogateescape") == b"\x1b[2J\xff"


def test_times_are_local_and_a_broken_stamp_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert format_line("api", LINE + b"x", LineStyle()) == "17:01:02.123 x"
    assert format_line("api", LINE + b"x", LineStyle(prefix_width=5)) == "17:01:02.123 api   | x"
    assert format_line("api", LINE + b"x", LineStyle(time="full")).startswith("2026-11-23T17:01:02.123456+00:00")
    assert format_line("api", b"no stamp at all, but a long line", LineStyle()).startswith("??:??:??.???")
