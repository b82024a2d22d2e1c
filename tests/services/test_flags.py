"""Flags: precedence, late definitions, and errors that name the flag and where its value came from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nova import exception, flags, flagtypes
from nova.flagtypes import Flag


def a_string(name: str, default: str | None = None, **more: Any) -> Flag:
    return Flag(name, "string", default, "", flagtypes.parse_string, **more)


def an_integer(name: str, default: int = 0, **more: Any) -> Flag:
    return Flag(name, "integer", default, "", flagtypes.parse_integer, **more)


def a_bool(name: str, default: bool = False) -> Flag:
    return Flag(name, "bool", default, "", flagtypes.parse_bool)


def values(*definitions: Flag, **environ: str) -> flags.FlagValues:
    found = flags.FlagValues(environ)
    for flag in (a_string("config_file"), *definitions):
        found.define(flag)
    return found


def test_command_line_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("a = 1\nb = 1\nc = 1\n")
    found = values(*(an_integer(name) for name in "abcd"), NOVA_A="2", NOVA_B="2", NOVA_CONFIG_FILE=str(path))
    found(["nova-x", "--a=3"])
    assert [found.a, found.b, found.c, found.d] == [3, 2, 1, 0]
    assert [found.source(name) for name in "abcd"] == [
        "command line",
        "environment NOVA_B",
        f"file {path}",
        "default",
    ]


def test_the_table_of_the_topic_overrides_the_top_level_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("a = 1\n[compute]\na = 2\n[network]\na = 3\n")
    found = values(an_integer("a"))
    found(["nova-compute", f"--config_file={path}"], section="compute")
    assert found.a == 2


def test_the_rest_of_the_words_is_returned_after_the_name_of_the_program() -> None:
    found = values(an_integer("a"), a_bool("b"))
    assert found(["x", "one", "--a", "5", "two", "--b", "three", "--", "--a=6"]) == [
        "x",
        "one",
        "two",
        "three",
        "--a=6",
    ]
    assert (found.a, found.b) == (5, True)


def test_an_argv_without_the_name_of_the_program_is_refused() -> None:
    with pytest.raises(exception.FlagError, match="name"):
        values(an_integer("a"))(["--a=1"])


@pytest.mark.parametrize(
    ("word", "value"),
    [("--b", True), ("--nob", False), ("--b=false", False), ("--b=yes", True), ("--no-b", None)],
)
def test_a_bool_is_said_by_its_name_or_no_and_its_name(word: str, value: bool | None) -> None:
    found = values(a_bool("b", True))
    if value is None:
        with pytest.raises(exception.FlagError):
            found(["x", word])
    else:
        found(["x", word])
        assert found.b is value


def test_an_unknown_flag_is_an_error_that_names_the_nearest() -> None:
    found = values(an_integer("report_interval"))
    with pytest.raises(
        exception.FlagError, match=r"unknown flag --reprot_interval .*did you mean --report_interval"
    ):
        found(["x", "--reprot_interval=3"])


def test_a_flag_defined_after_the_parse_takes_the_value_that_was_given() -> None:
    found = values(NOVA_LATE_ENV="7")
    found(["x", "--late=5", "--word", "text", "--nolate_bool"], late=True)
    for flag in (an_integer("late"), an_integer("late_env"), a_string("word"), a_bool("late_bool", True)):
        found.define(flag)
    assert (found.late, found.late_env, found.word, found.late_bool) == (5, 7, "text", False)
    found.finish()


def test_what_nobody_defined_late_is_refused_at_the_end() -> None:
    found = values()
    found(["x", "--never=5"], late=True)
    with pytest.raises(exception.FlagError, match="--never"):
        found.finish()


# Of Nova's server.py and twistd.py, as the specification and its history name them.
OF_THE_OLD_DAEMON = [
    "pidfile", "guid", "uid", "gid", "euid", "daemonize", "nodaemon", "logdir", "logfile", "working_directory",
    "prefix", "umask", "chroot", "rundir", "reactor", "no_save", "originalname", "encrypted",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_OLD_DAEMON)
def test_a_flag_of_the_old_daemon_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(exception.FlagError, match=f"--{name} was removed: your supervisor does this") as caught:
        values()(["x", f"--{name}=1"], late=True)
    assert caught.value.exit_code == 100


def test_an_unknown_key_of_the_own_table_is_an_error_and_of_the_top_level_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("network_driver = 'x'\n[compute]\na = 2\n")
    found = values(an_integer("a"))
    found(["x", f"--config_file={path}"], section="compute")
    assert found.unknown_in_file() == [f"unknown flag --network_driver (file {path})"]
    path.write_text("[compute]\nb = 2\n")
    with pytest.raises(exception.FlagError, match=r"unknown flag --b \(file .*flags.toml \[compute\]\)"):
        found(["x", f"--config_file={path}"], section="compute")


@pytest.mark.parametrize("text", ["", "x", "1.5", "true"])
def test_a_bad_value_names_flag_value_and_source(text: str) -> None:
    with pytest.raises(exception.FlagError, match=r"--a: expected an integer, got .* \(environment NOVA_A\)"):
        values(an_integer("a"), NOVA_A=text)(["x"])


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("--report_interval=0", "expected 0.01 or more"),
        ("--report_interval=-1", "expected 0.01 or more"),
        ("--report_interval=inf", "expected a number"),
        ("--rpc_thread_pool_size=-1", "expected 1 or more"),
        ("--drain_timeout=-1", "expected 0 or more"),
        ("--host=", "expected a name"),
        ("--state_path= ", "expected a name"),
    ],
)
def test_a_value_that_no_service_could_work_with_is_refused(word: str, why: str) -> None:
    script = "import sys; from nova import flags; flags.FLAGS(['x', *sys.argv[1:]])"
    services = Path(__file__).parents[2] / "services"
    ran = subprocess.run(
        [sys.executable, "-c", script, word], env={"PYTHONPATH": str(services)}, capture_output=True, text=True
    )
    name = word.partition("=")[0]
    assert f"FlagError: {name}: {why}, got " in ran.stderr


def test_a_bad_value_of_a_secret_is_not_shown() -> None:
    with pytest.raises(exception.FlagError) as caught:
        values(an_integer("pin", secret=True), NOVA_PIN="hunter2")(["x"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ["a = ", "a = true\n", "\xff"])
def test_a_bad_file_is_a_flag_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "flags.toml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(exception.FlagError, match=r"flags\.toml"):
        values(an_integer("a"))(["x", f"--config_file={path}"])


def test_a_missing_file_is_a_flag_error() -> None:
    with pytest.raises(exception.FlagError, match="No such file"):
        values()(["x", "--flagfile=/does/not/exist.toml"])


def test_a_string_may_refer_to_other_flags() -> None:
    found = values(a_string("state_path", "/s"), a_string("db", "sqlite:///$state_path/${name}.db$$$HOME"))
    found.define(a_string("name", "n-$state_path"))
    assert found.db == "sqlite:////s/n-/s.db$$HOME"


def test_flags_that_refer_to_each_other_are_an_error() -> None:
    found = values(a_string("a", "$b"), a_string("b", "$a"))
    with pytest.raises(exception.FlagError, match="refers to itself"):
        _ = found.a


def test_reload_changes_mutable_flags_only_and_says_which_need_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("a = 1\nb = 1\n")
    found = values(an_integer("a", mutable=True), an_integer("b"), an_integer("c", 9, mutable=True))
    found(["x", f"--config_file={path}"])
    path.write_text("a = 2\nb = 2\n")
    assert found.reload() == (["a"], ["b"])
    assert (found.a, found.b, found.c) == (2, 1, 9)
    path.write_text("a = 'x'\n")
    with pytest.raises(exception.FlagError):
        found.reload()
    assert found.a == 2


def test_override_is_for_the_block_only_and_refuses_unknown_names() -> None:
    found = values(an_integer("a", 1))
    with found.override(a=2):
        assert (found.a, found.source("a")) == (2, "override")
        with found.override(a=3):
            assert found.a == 3
        assert found.a == 2
    assert found.a == 1
    with pytest.raises(exception.FlagError):
        with found.override(b=1):
            pass


def test_dump_shows_sources_and_masks_secrets_and_passwords_in_urls() -> None:
    found = values(a_string("key", secret=True), a_string("url", "amqp://u:hunter2@h/"), NOVA_KEY="hunter2")
    found(["x"])
    assert found.dump() == (
        "config_file = None  # default\nkey = ********  # environment NOVA_KEY\n"
        "url = 'amqp://u:********@h/'  # default\n"
    )


def test_a_second_definition_must_equal_the_first() -> None:
    found = values(an_integer("a", 1))
    found.define(an_integer("a", 1))
    with pytest.raises(exception.FlagError, match="defined twice"):
        found.define(an_integer("a", 2))


def test_declare_imports_the_module_that_defines_a_flag() -> None:
    flags.DECLARE("drain_timeout", "nova.flags")
    with pytest.raises(exception.FlagError, match="not defined by"):
        flags.DECLARE("nobody_defines_this", "nova.context")


def test_reading_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="drain_timeout"):
        _ = flags.FLAGS.drain_timeot
