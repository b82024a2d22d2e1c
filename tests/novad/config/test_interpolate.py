"""`${...}` by itself, and what its names mean in a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novad.config.interpolate import Unresolved, expand, names, parse, split_words
from tests.novad.config.compiling import compiled, faults, process

VALUES = {"dir": "/srv", "name": "api", "env.SET": "1", "env.EMPTY": "", "env.UNSET": None}


def lookup(name: str) -> str | None:
    try:
        return VALUES[name]
    except KeyError:
        raise Unresolved(f"unknown {name}", None) from None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $HOME $ $$ {x} $(y)", "plain $HOME $ $$ {x} $(y)"),
        ("${dir}/x/${name}", "/srv/x/api"),
        ("$${dir}", "${dir}"),
        ("$${dir} ${dir} $${", "${dir} /srv ${"),
        ("$$${dir}", "$${dir}"),
        ("${env.SET:-no} ${env.UNSET:-yes} ${env.EMPTY:-yes} ${env.EMPTY}.", "1 yes yes ."),
        ("${env.UNSET:-${env.UNSET:-${dir}}/x}", "/srv/x"),
        ("${env.UNSET:-}", ""),
        ("${env.UNSET:-a:-b}", "a:-b"),
        ("", ""),
    ],
)
def test_references_are_replaced_and_everything_else_is_kept(text: str, expected: str) -> None:
    assert expand(text, lookup) == expected


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("x ${nope} y", "${nope}"),
        ("x ${} y", "${}"),
        ("x ${ dir } y", "${ dir }"),
        ("x ${dir", "${dir"),
        ("x ${env.UNSET}", "${env.UNSET}"),
        ("x ${env.UNSET:-${nope}}", "${nope}"),
        ("x ${dir:-y}", "${dir:-y}"),
        ("x ${env.UNSET:-${dir}", "${env.UNSET:-${dir}"),
    ],
)
def test_what_cannot_be_replaced_is_pointed_at(text: str, fragment: str) -> None:
    with pytest.raises(Unresolved) as caught:
        expand(text, lookup)
    assert caught.value.fragment == fragment


def test_absurd_nesting_is_an_error_and_no_overflow() -> None:
    with pytest.raises(Unresolved):
        expand("${env.UNSET:-" * 5000 + "}" * 5000, lookup)


def test_names_are_those_of_defaults_too() -> None:
    assert names("${a} $${b} ${env.C:-${d}}") == {"a", "env.C", "d"}
    assert names("${open") == set()


@given(st.text(alphabet="$\\{}:-abenv.'\" ", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    fragment = ""
    try:
        expand(text, lambda name: "value")
    except Unresolved as error:
        fragment = error.fragment or "an error without a fragment"
    assert fragment in text


@given(st.lists(st.text(alphabet="ab$} '\"\\", min_size=1, max_size=6), min_size=1, max_size=5))
def test_words_are_split_as_the_shell_does(words: list[str]) -> None:
    assert split_words(shlex.join(words), shlex.split) == words


def test_a_reference_stays_one_word_whatever_is_in_it() -> None:
    text = 'run ${env.X:-a \'b c} --flag="${dir}/x y" $${z w}'
    assert split_words(text, shlex.split) == ["run", "${env.X:-a 'b c}", "--flag=${dir}/x y", "$${z", "w}"]


def test_pieces_and_references_make_up_the_text() -> None:
    pieces = list(parse("a${b}c$${d}${env.E:-f}"))
    assert (
        "".join(piece if isinstance(piece, str) else piece.fragment for piece in pieces)
        == "a${b}c${d}${env.E:-f}"
    )


TEXT = """
[services]
broker = { command = "b", ports = { amqp = 5672 }, url = "amqp://x:${port.amqp}/${namespace}" }
compute = { command = "c", replicas = 2, ports = { console = "6080+" }, url = "http://${name}:${port}" }
web = { command = "w ${port}" }

[services.api]
command = [%s]
ports = { first = 1, second = 2 }
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${dir}", "DIR"),
        ("${run_dir}", "/run/novad/abc"),
        ("${namespace}", "default"),
        ("${name}", "api"),
        ("${n}", "1"),
        ("${port}", "1"),
        ("${port.second}", "2"),
        ("${services.broker.url}", "amqp://x:5672/default"),
        ("${services.broker.port.amqp}", "5672"),
        ("${services.broker.port}", "5672"),
        ("${services.compute.url}", "http://compute.1:6080"),
        ("${services.compute.2.url}", "http://compute.2:6081"),
        ("${services.compute.2.port.console}", "6081"),
        ("${services.api.port.first}", "1"),
        ("${env.HOME}", "/home/dev"),
        ("${env.NONE:-x}", "x"),
    ],
)
def test_names_mean_what_the_manual_says(text: str, expected: str, tmp_path: Path) -> None:
    cluster = compiled(tmp_path, TEXT % f'"api", "{text}"')
    assert process(cluster, "api").argv[1] == expected.replace("DIR", str(tmp_path))


def test_the_implicit_port_of_another_service_can_be_used(tmp_path: Path) -> None:
    cluster = compiled(tmp_path, TEXT % '"api", "${services.web.url}"')
    number = process(cluster, "web").ports["port"].number
    assert process(cluster, "api").argv[1] == f"http://127.0.0.1:{number}/"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${services.none.url}", "there is no service `none`"),
        ("${services.web.port.http}", "`web` has no port `http`"),
        ("${services.api.url}", "`api` has no url"),
        ("${services.api}", "unknown name `services.api`"),
        ("${port.}", "unknown name `port.`"),
        ("${env.}", "unknown name `env.`"),
        ("${services..url}", "unknown name `services..url`"),
    ],
)
def test_a_name_that_means_nothing_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    assert faults(tmp_path, TEXT % f'"api", "{text}"') == [message]


def test_a_value_used_by_many_processes_is_at_fault_once(tmp_path: Path) -> None:
    text = '[env]\nX = "${nope}"\n[services]\na = { command = "a", replicas = 5 }\nb = "b ${env.X}"'
    assert faults(tmp_path, text) == ["unknown name `nope`"]


def test_a_long_chain_of_references_is_an_error_and_no_overflow(tmp_path: Path) -> None:
    links = "".join(f'A{number} = "${{env.A{number + 1}}}"\n' for number in range(3000))
    text = f'[env]\n{links}A3000 = "end"\n[services]\na = "a"'
    messages = faults(tmp_path, text)
    assert set(messages) == {"more than 50 values refer to one another in a row"}


def test_a_shell_sees_its_own_variables(tmp_path: Path) -> None:
    text = '[services.a]\nshell = true\ncommand = "echo $HOME $${HOME} ${env.HOME}"'
    assert process(compiled(tmp_path, text), "a").argv == ("/bin/sh", "-c", "echo $HOME ${HOME} /home/dev")
