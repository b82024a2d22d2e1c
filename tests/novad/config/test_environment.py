"""Which value of a variable wins, and what it may be built on."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from novad.config.explain import show
from tests.novad.config.compiling import SHELL, compiled, faults, process, traced, write

# Each place a variable can be set in, from low to high.
PLACES = ["shell", "env", "env_files", "defaults", "service_files", "service", "local_env", "local_service"]
PLACES += ["profile_env", "profile_service", "override"]


def project(places: set[str]) -> tuple[str, dict[str, str], dict[str, str], dict[str, str]]:
    """nova.toml, further files, the shell's environment and -e, with X set in the given places only."""

    def table(header: str, place: str) -> str:
        return f'[{header}]\nX = "{place}"\n' if place in places else ""

    text = '[novad]\nenv_files = [".env"]\n' if "env_files" in places else ""
    text += table("env", "env") + table("defaults.env", "defaults")
    text += '[services.api]\ncommand = "api"\n'
    text += 'env_files = ["api.env"]\n' if "service_files" in places else ""
    text += table("services.api.env", "service")
    text += "[profile.ci]\n" + table("profile.ci.env", "profile_env")
    text += table("profile.ci.services.api.env", "profile_service")
    files = {
        ".env": "X=env_files\n",
        "api__env": "X=service_files\n",
        "nova__local__toml": table("env", "local_env") + table("services.api.env", "local_service"),
    }
    shell = SHELL | ({"X": "shell"} if "shell" in places else {})
    return text, files, shell, {"X": "override"} if "override" in places else {}


def value_of_x(folder: Path, places: set[str]) -> str | None:
    text, files, shell, overrides = project(places)
    cluster = compiled(folder, text, files, environ=shell, overrides=overrides, profile="ci")
    return process(cluster, "api").env.get("X", cluster.env.get("X"))


@pytest.mark.parametrize(("low", "high"), [*itertools.combinations(PLACES, 2)])
def test_of_two_places_the_higher_one_wins(low: str, high: str, tmp_path: Path) -> None:
    assert value_of_x(tmp_path, {low, high}) == high


def test_of_all_places_the_command_line_wins(tmp_path: Path) -> None:
    assert value_of_x(tmp_path, set(PLACES)) == "override"


def test_a_variable_may_build_on_the_one_below_it_through_all_files(tmp_path: Path) -> None:
    cluster = compiled(
        tmp_path,
        """
        [env]
        PATH = "/env:${env.PATH}"
        [services.api]
        command = "api"
        env = { PATH = "/service:${env.PATH}" }
        [profile.ci.services.api.env]
        PATH = "/profile:${env.PATH}"
        """,
        {"nova__local__toml": '[services.api.env]\nPATH = "/local:${env.PATH}"'},
        profile="ci",
    )
    assert process(cluster, "api").env["PATH"] == "/profile:/local:/service:/env:/usr/bin:/bin"


def test_a_variable_may_refer_to_others_and_to_the_ports_of_its_process(tmp_path: Path) -> None:
    cluster = compiled(
        tmp_path,
        """
        [env]
        URL = "${env.SCHEME}://${name}:${port.http}"
        SCHEME = "http"
        [services]
        a = { command = "x ${env.URL}", ports = { http = 81 } }
        b = { command = "x", ports = { http = 82 }, env = { SCHEME = "https" } }
        """,
    )
    assert process(cluster, "a").argv == ("x", "http://a:81")
    assert process(cluster, "b").env["URL"] == "https://b:82"


def test_false_removes_a_variable_and_a_number_becomes_text(tmp_path: Path) -> None:
    text = '[services]\napi = { command = "x ${env.LANG:-none}", env = { LANG = false, N = 5, F = 1.5 } }'
    api = process(compiled(tmp_path, text), "api")
    assert api.env == {"LANG": None, "N": "5", "F": "1.5"}
    assert api.argv == ("x", "none")


def test_the_shell_is_passed_on_without_what_was_meant_for_novad(tmp_path: Path) -> None:
    shell = {"HOME": "/h", "NOVAD_PROFILE": "", "NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "5"}
    cluster = compiled(tmp_path, '[services]\na = "x"', environ=shell)
    assert cluster.env == {"HOME": "/h", "PYTHONUNBUFFERED": "1"}


def test_the_shell_may_say_that_python_buffers(tmp_path: Path) -> None:
    assert compiled(tmp_path, '[services]\na = "x"', environ={"PYTHONUNBUFFERED": ""}).env == {
        "PYTHONUNBUFFERED": ""
    }


def test_values_of_env_files_are_literal_and_usable(tmp_path: Path) -> None:
    env = "# comment\nexport PASSWORD='a${b}$c'\nQUOTED=\"two words\"\nEMPTY=\nBARE\n"
    text = '[novad]\nenv_files = [".env", "none.env?"]\n[services]\na = "x ${env.PASSWORD} ${env.QUOTED}"'
    a = process(compiled(tmp_path, text, {".env": env}), "a")
    assert a.argv == ("x", "a${b}$c", "two words")
    assert a.env == {"PASSWORD": "a${b}$c", "QUOTED": "two words", "EMPTY": ""}


def test_a_setting_may_come_from_the_environment(tmp_path: Path) -> None:
    text = """
    [novad]
    env_files = [".env.${env.STAGE:-dev}"]
    [services.a]
    command   = "x"
    replicas  = "${env.N:-2}"
    oneshot   = "${env.ONCE}"
    ports     = { http = "${env.PORT}" }
    stop      = { timeout = "${env.T:-3}s" }
    """
    cluster = compiled(tmp_path, text, {".env__dev": "ONCE=true\nPORT=6080+\n"})
    assert [p.ports["http"].number for p in cluster.processes] == [6080, 6081]
    assert all(p.oneshot and p.stop.timeout_s == 3.0 for p in cluster.processes)


def test_a_text_from_the_environment_is_not_taken_for_a_number_by_chance(tmp_path: Path) -> None:
    text = '[services.a]\ncommand = "x"\nreplicas = "${env.N}"'
    message = 'services.a.replicas: expected a whole number, got "two"'
    assert faults(tmp_path, text, environ={"N": "two"}) == [message]


def test_the_origin_of_each_variable_is_known(tmp_path: Path) -> None:
    text, files, shell, _ = project({"shell", "profile_service"})
    made = traced(tmp_path, '[env]\nA = "1"\n' + text, files, environ=shell, overrides={"B": "2"}, profile="ci")
    origins = {row.key: row.origin for row in show(made, "api") if row.key.startswith("env.")}
    assert origins == {
        "env.A": "nova.toml:2",
        "env.B": "-e",
        "env.HOME": "environment",
        "env.LANG": "environment",
        "env.PATH": "environment",
        "env.PYTHONUNBUFFERED": "default",
        "env.X": "profile ci, nova.toml:7",
    }


def test_the_origin_of_a_variable_from_a_file_is_its_line(tmp_path: Path) -> None:
    text = '[novad]\nenv_files = [".env"]\n[services]\na = "x"'
    made = traced(tmp_path, text, {".env": "\n# one\nA=1\n\nB=2\n"})
    origins = {row.key: row.origin for row in show(made, "a")}
    assert (origins["env.A"], origins["env.B"]) == (".env:3", ".env:5")


def test_no_local_file_is_read_when_that_is_asked_for(tmp_path: Path) -> None:
    config = '[services]\na = "x"'
    local = {"nova__local__toml": '[services]\na = "y"'}
    assert process(compiled(tmp_path, config, local), "a").argv == ("y",)
    assert process(compiled(tmp_path, config, local, use_local=False), "a").argv == ("x",)
    assert process(compiled(tmp_path, config, local, environ={"NOVAD_LOCAL": "0"}), "a").argv == ("x",)


def test_the_profile_may_come_from_the_environment_and_the_option_wins(tmp_path: Path) -> None:
    text = '[services]\na = "x"\n[profile.one.services]\na = "y"\n[profile.two.services]\na = "z"'
    write(tmp_path, text)
    assert process(compiled(tmp_path, text, environ={"NOVAD_PROFILE": "one"}), "a").argv == ("y",)
    assert process(compiled(tmp_path, text, environ={"NOVAD_PROFILE": "one"}, profile="two"), "a").argv == ("z",)


def test_a_variable_switches_preloading_off(tmp_path: Path) -> None:
    config = '[novad]\npreload = ["eventlet:monkey_patch"]\n[services.a]\npython = "app"\n'
    assert compiled(tmp_path, config).preload == ("eventlet:monkey_patch",)
    assert compiled(tmp_path, config, environ={"NOVAD_PRELOAD": "0"}).preload == ()
