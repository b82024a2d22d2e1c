"""Files over files: includes, nova.local.toml, profiles, unset."""

from __future__ import annotations

from pathlib import Path

from novad.config.explain import show
from novad.core import spec
from tests.novad.config.compiling import compiled, faults, process, traced

BASE = """
[services.api]
command = ["api", "one", "two"]
ports   = { http = 8774, metadata = 8775 }
ready   = { tcp = "http" }
stop    = { signal = "INT", timeout = "5s" }
after   = ["broker"]

[services.broker]
command = "broker"
"""


def test_tables_merge_while_lists_and_scalars_replace(tmp_path: Path) -> None:
    local = """
    [services.api]
    command = ["other"]
    after   = []
    ports   = { http = 9000 }
    ready   = { notify = true }
    stop.timeout = "1s"
    """
    api = process(compiled(tmp_path, BASE, {"nova__local__toml": local}), "api")
    assert api.argv == ("other",)
    assert api.after == ()
    assert {name: port.number for name, port in api.ports.items()} == {"http": 9000, "metadata": 8775}
    assert api.ready == spec.Probe(notify=True, tcp=spec.TcpProbe("127.0.0.1", 9000))
    assert api.stop == spec.Stop("INT", 1.0)


def test_a_service_as_a_string_is_its_command_in_every_layer(tmp_path: Path) -> None:
    local = '[services]\napi = "other"\nnew = "new"'
    cluster = compiled(tmp_path, BASE, {"nova__local__toml": local})
    assert process(cluster, "api").argv == ("other",)
    assert process(cluster, "api").ports["http"].number == 8774
    assert process(cluster, "new").argv == ("new",)


def test_a_profile_lies_above_the_local_file(tmp_path: Path) -> None:
    text = BASE + '[profile.ci.services.api]\nstop = { timeout = "9s" }\n'
    local = {"nova__local__toml": '[services.api.stop]\ntimeout = "1s"\nsignal = "QUIT"'}
    assert process(compiled(tmp_path, text, local, profile="ci"), "api").stop == spec.Stop("QUIT", 9.0)


def test_a_profile_written_in_the_local_file_is_laid_over_that_of_the_project(tmp_path: Path) -> None:
    text = BASE + '[profile.ci]\non_crash = "stop"\n[profile.ci.env]\nA = "1"\nB = "1"\n'
    local = {"nova__local__toml": '[profile.ci.env]\nB = "2"'}
    cluster = compiled(tmp_path, text, local, profile="ci")
    assert cluster.on_crash == "stop"
    assert process(cluster, "api").env == {"A": "1", "B": "2"}
    assert cluster.profile == "ci"


def test_a_skipped_service_is_not_waited_for(tmp_path: Path) -> None:
    text = BASE + '[groups]\nall-of-it = ["api", "broker"]\n[profile.ci]\nskip = ["broker"]\n'
    cluster = compiled(tmp_path, text, profile="ci")
    assert [p.name for p in cluster.processes] == ["api"]
    assert process(cluster, "api").after == ()
    assert cluster.groups == {"all-of-it": ("api",)}


def test_unset_removes_a_key_in_the_local_file_and_in_a_profile(tmp_path: Path) -> None:
    text = BASE + '[services.api.env]\nDEBUG = "1"\n[profile.ci]\nunset = ["services.api.stop.signal"]\n'
    local = {"nova__local__toml": 'unset = ["services.api.env.DEBUG", "services.api.ready"]'}
    api = process(compiled(tmp_path, text, local, profile="ci"), "api")
    assert (api.env, api.ready, api.stop) == ({}, None, spec.Stop("TERM", 5.0))


def test_unset_makes_room_for_another_kind_of_program(tmp_path: Path) -> None:
    local = {"nova__local__toml": 'unset = ["services.api.command"]\n[services.api]\npython = "api:main"'}
    assert process(compiled(tmp_path, BASE, local), "api").python == spec.Python("api:main")


def test_defaults_are_merged_under_every_service(tmp_path: Path) -> None:
    text = '[defaults]\nrestart = "always"\nstop = { signal = "INT" }\n' + BASE
    api, broker = compiled(tmp_path, text).processes
    assert api.restart == broker.restart == "always"
    assert (api.stop, broker.stop) == (spec.Stop("INT", 5.0), spec.Stop("INT", 10.0))


def test_included_files_add_services_in_the_order_of_their_names(tmp_path: Path) -> None:
    text = '[novad]\ninclude = ["etc/*.toml", "none.toml?", "also.toml?"]\n' + BASE
    files = {
        "etc/b__toml": '[services.two]\ncommand = "two"\nafter = ["api"]',
        "etc/a__toml": '[services]\none = "one"\n[groups]\ng = ["one"]\n[profile.x]\nskip = ["one"]',
        "also__toml": '[services]\nthree = "three"',
    }
    cluster = compiled(tmp_path, text, files)
    assert [p.name for p in cluster.processes] == ["api", "broker", "one", "two", "three"]
    names = ["nova.toml", "etc/a.toml", "etc/b.toml", "also.toml"]
    assert cluster.files == tuple(str(tmp_path / name) for name in names)
    assert process(cluster, "one").origin == "etc/a.toml:2"


def test_the_same_file_included_twice_is_read_once(tmp_path: Path) -> None:
    text = '[novad]\ninclude = ["more.toml", "./more.toml", "*.toml"]\n[services]\na = "x"'
    cluster = compiled(tmp_path, text, {"more__toml": '[services]\nb = "y"'})
    assert [p.name for p in cluster.processes] == ["a", "b"]


def test_the_origin_of_a_setting_names_its_file_line_and_profile(tmp_path: Path) -> None:
    text = BASE + '[profile.ci.services.api]\nrestart = "no"\n'
    local = {"nova__local__toml": '\n[services.api]\nnice = 5\nstop.timeout = "1s"'}
    rows = {row.key: (row.value, row.origin) for row in show(traced(tmp_path, text, local, profile="ci"), "api")}
    assert rows["command"] == ("api one two", "nova.toml:3")
    assert rows["restart"] == ("no", "profile ci, nova.toml:12")
    assert rows["nice"] == ("5", "nova.local.toml:3")
    assert rows["stop.signal"] == ("INT", "nova.toml:6")
    assert rows["stop.timeout"] == ("1s", "nova.local.toml:4")
    assert rows["ready.tcp"] == ("127.0.0.1:8774", "nova.toml:5")
    assert rows["oneshot"] == ("false", "default")


def test_an_inactive_profile_is_checked_too(tmp_path: Path) -> None:
    text = BASE + '[profile.ci.services.api]\nrestart = "never"\n'
    message = 'profile.ci.services.api.restart: expected "no", "on-failure" or "always", got "never"'
    assert faults(tmp_path, text) == [message]
