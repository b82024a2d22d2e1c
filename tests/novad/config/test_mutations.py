"""Whatever is done to a good file, the outcome is a cluster or a report; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tomli

from novad.config.load import compile_cluster
from novad.config.manual import keys
from novad.core import spec
from tests.novad.config.compiling import arguments, refusal

GOOD = (Path(__file__).parent / "good" / "cluster.toml").read_text()

FRAGMENTS = [
    '"', "'", "[", "]", "{", "}", "=", ".", ",", "\n", "\\", "#", "${", "}", "$${", "${port}", "${env.X}", "${n}",
    "${services.broker.url}", "${services.api.port.http}", '"""', "[[services]]", "true", "-1", "1e400", "nan",
    "1979-05-27", "99999999999999999999", '""', "[]", "{}", "\t", "\0", "\x1b", "é", "日本", "[services.api]",
    "[env]\n", "[profile.ci]\n", 'after = ["api"]',
    "replicas = 0\n", 'url = "${services.broker.url}"\n', "*", "..",
]  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        lines = text.split("\n")
        match chance.randrange(7):
            case 0:
                text = text[:at] + text[at + chance.randint(1, 12) :]
            case 1:
                text = text[:at] + chance.choice(FRAGMENTS) + text[at:]
            case 2:
                start = chance.randrange(len(text) + 1)
                text = text[:at] + text[start : start + chance.randint(1, 60)] + text[at:]
            case 3:
                line = chance.randrange(len(lines))
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case 4:
                chance.shuffle(lines)
                text = "\n".join(lines)
            case 5:
                line = chance.randrange(len(lines))
                key, equals, _ = lines[line].partition("=")
                lines[line] = f"{key}{equals} {chance.choice(FRAGMENTS)}"
                text = "\n".join(lines)
            case _:
                one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
                left, right = lines[one].partition("=")[0], lines[two].partition("=")[2]
                lines[one] = f"{left}={right}"
                text = "\n".join(lines)
    return text


VALUES = [
    "0",
    "1",
    "-1",
    "3",
    "1.5",
    "nan",
    "inf",
    "true",
    "false",
    "1979-05-27",
    '""',
    '"x"',
    '"a\\u0020b"',
    '"auto"',
    '"80?"',
    '"80+"',
    '"10s"',
    '"10MiB"',
    '"api"',
    '"broker"',
    '"broker:done"',
    '"${port}"',
    '"${n}"',
    '"${name}"',
    '"${"',
    '"${env.HOME}"',
    '"${env.NO:-3}"',
    '"${env.NO:-true}"',
    '"${nope}"',
    '"${services.api.url}"',
    '"${services.compute.2.port}"',
    "[]",
    "[[]]",
    '[""]',
    '["x"]',
    '["api"]',
    '["api","compute.2","nope"]',
    '["all"]',
    "[1]",
    "{}",
    "{a=1}",
    "{notify=true}",
    '{http="/"}',
    "{tcp=80}",
    '{tcp="[::1]:80"}',
    '{log="("}',
    '{A="${env.A}"}',
    '{api="x"}',
    '{api={after=["api"]}}',
    '{signal="KILL"}',
    "{p=8774}",
    '{command="x",python="y"}',
    '"*.toml"',
    '"*.toml?"',
    '"\\u0000"',
    '"nova.toml"',
    "0x1F",
    "99999999999999999999",
    '["services.api"]',
    "[{}]",
    '{min="1h"}',
    '{globs=["a"]}',
    '[["a"]]',
    '"a:b"',
    '"1-2"',
]
TABLES = [
    "novad",
    "env",
    "defaults",
    "services",
    "services.api",
    "services.compute",
    "services.new",
    "services.api.env",
    "services.compute.ready",
    "groups",
    "profile.ci",
    "profile.ci.services",
    "profile.ci.services.api",
    "profile.ci.env",
]
WORDS = [
    *(name.rpartition(".")[2] for name in keys()),
    "api",
    "compute",
    "A",
    "nope",
    "8774",
    '"x.y"',
    '""',
    "unset",
]


def overlay(chance: random.Random) -> str:
    """A nova.local.toml that gives other values, often to keys that exist."""
    text = ""
    for _ in range(chance.choice([1, 1, 2])):
        path = ".".join([chance.choice([*TABLES, ""]), *chance.choices(WORDS, k=chance.choice([1, 1, 1, 2]))])
        longer = f"{text}{path.lstrip('.')} = {chance.choice(VALUES)}\n"
        try:
            tomli.loads(longer)
        except tomli.TOMLDecodeError:
            continue  # the same key twice
        text = longer
    return text


def outcome(config: Path, text: str, profile: str | None) -> str:
    config.write_text(text, encoding="utf-8", newline="")
    report = refusal(str(config), profile=profile)
    if report is None:
        cluster = compile_cluster(str(config), **arguments(profile=profile))
        assert spec.cluster_from_json(spec.to_json(cluster)) == cluster
        return "accepted"
    assert report.faults
    assert report.render(color=True)
    assert len(report.render(short=True).split("\n")) == len(report.faults)
    return "refused"


@pytest.mark.parametrize("seed", range(10))
def test_no_mutation_of_a_good_file_ends_in_a_traceback(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    config = tmp_path.resolve() / "nova.toml"
    outcomes = [outcome(config, mutated(GOOD, chance), chance.choice([None, "ci"])) for _ in range(50)]
    assert {"refused", "accepted"} == set(
        outcomes
    )  # neither would mean that the mutations are too mild or too wild


@pytest.mark.parametrize("seed", range(3))
def test_no_other_value_for_a_key_ends_in_a_traceback(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    config = tmp_path.resolve() / "nova.toml"
    outcomes = []
    for _ in range(150):
        (config.parent / "nova.local.toml").write_text(overlay(chance))
        outcomes.append(outcome(config, GOOD, chance.choice([None, "ci"])))
    assert {"refused", "accepted"} == set(outcomes)


@pytest.mark.parametrize("seed", range(2))
def test_no_mutation_of_an_included_file_ends_in_a_traceback(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    config = tmp_path.resolve() / "nova.toml"
    included = tmp_path / "etc/novad.d/more.toml"
    included.parent.mkdir(parents=True)
    extra = '[services.extra]\ncommand = "sleep ${env.N:-3}"\nafter = ["api"]\nports = { x = "auto" }\n[env]\nE = "1"\n'
    outcomes = []
    for _ in range(50):
        included.write_text(mutated(extra, chance), encoding="utf-8", newline="")
        outcomes.append(outcome(config, GOOD, chance.choice([None, "ci"])))
    assert {"refused", "accepted"} == set(outcomes)


def test_no_bytes_end_in_a_traceback(tmp_path: Path) -> None:
    config = tmp_path.resolve() / "nova.toml"
    for content in (
        b"\xff\xfe",
        b"a = \x80",
        b"\xef\xbb\xbf[services]\na = 'x'",
        b"\0" * 10,
        b"a = 1\r\nb = 2\r",
        b"",
    ):
        config.write_bytes(content)
        report = refusal(str(config))
        assert report is None or report.faults
