"""nova.toml, changed five hundred times under a living cluster: well, badly, and beyond repair."""

from __future__ import annotations

import copy
import json
import random
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from tests.system.board import experiment, require
from tests.system.site import Site

Model = dict[str, dict[str, Any]]
NAMES = tuple(f"s{number}" for number in range(6))
SCRIPT = 'echo "$VICTIM $$" >> "$BELL"; exec sleep 600'
# What a child is born with. Everything else of a service concerns its supervisor alone.
BORN_WITH = ("command", "cwd", "env", "limits", "nice")
CONFIG_FAULT = 78


def _service(name: str) -> dict[str, Any]:
    return {
        "command": ["/bin/sh", "-c", SCRIPT], "env": {"VICTIM": name, "LEVEL": "info"}, "after": [],
        "description": "a victim", "stop": {"timeout": "2s"}, "ready_after": "20ms", "restart": "no",
    }  # fmt: skip


def _base(site: Site) -> Model:
    return {
        "env": {"SITE": site.token, "BELL": f"{site.folder}/bell", "SHARED": "1"},
        "services": {name: _service(name) for name in NAMES},
    }


def _text(model: Model) -> str:
    """The model as TOML, in tables of services."""
    lines = ["[env]", *(f"{key} = {json.dumps(value)}" for key, value in model["env"].items())]
    for name, service in model["services"].items():
        lines += ["", f"[services.{name}]"]
        lines += [f"{key} = {_value(value)}" for key, value in service.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


# --- Good changes: what they do to the model ----------------------------------------------------------------


def _change_env(model: Model, dice: random.Random) -> None:
    model["services"][dice.choice([*model["services"]])]["env"]["LEVEL"] = f"{dice.random()}"


def _change_shared(model: Model, dice: random.Random) -> None:
    model["env"]["SHARED"] = f"{dice.random()}"


def _change_command(model: Model, dice: random.Random) -> None:
    service = model["services"][dice.choice([*model["services"]])]
    service["command"] = ["/bin/sh", "-c", SCRIPT, f"{dice.random()}"]


def _change_birth(model: Model, dice: random.Random) -> None:
    service = model["services"][dice.choice([*model["services"]])]
    key, value = dice.choice(
        [("nice", dice.randrange(10)), ("cwd", dice.choice(["/", "/tmp"])),
         ("limits", {"nofile": dice.randrange(200, 256)})]
    )  # fmt: skip
    service[key] = value


def _change_care(model: Model, dice: random.Random) -> None:
    """What concerns the supervisor alone."""
    service = model["services"][dice.choice([*model["services"]])]
    key, value = dice.choice(
        [("description", f"{dice.random()}"), ("stop", {"timeout": f"{dice.randint(1, 9)}s"}),
         ("restart", dice.choice(["no", "always", "on-failure"])), ("ready_after", f"{dice.randint(10, 30)}ms"),
         ("backoff", {"min": f"{dice.randint(1, 9)}s"}), ("groups", [f"g{dice.randrange(3)}"])]
    )  # fmt: skip
    service[key] = value


def _change_after(model: Model, dice: random.Random) -> None:
    """Names of services before it only, so that there is no cycle."""
    names = [*model["services"]]
    index = dice.randrange(len(names))
    model["services"][names[index]]["after"] = dice.sample(names[:index], min(index, dice.randint(0, 2)))


def _add(model: Model, dice: random.Random) -> None:
    name = f"n{dice.randrange(10**6)}"
    model["services"][name] = _service(name)


def _remove(model: Model, dice: random.Random) -> None:
    if len(model["services"]) > 3:
        gone = dice.choice([*model["services"]])
        del model["services"][gone]
        for service in model["services"].values():
            service["after"] = [name for name in service["after"] if name != gone]


def _nothing(model: Model, dice: random.Random) -> None:
    """The same again: a reload of nothing."""


GOOD: tuple[Callable[[Model, random.Random], None], ...] = (
    _change_env, _change_shared, _change_command, _change_birth, _change_care, _change_care, _change_after, _add,
    _remove, _nothing,
)  # fmt: skip


# --- Bad changes: what they do to the text ------------------------------------------------------------------


def _bad_tails(dice: random.Random, last: str) -> list[bytes]:
    """What makes any nova.toml wrong when it stands at its end, which is in the table of the service `last`."""
    return [
        b'comand = "sleep 1"\n', b'replicas = "many"\n', b"env2 = 3\n", b"nice = nan\n", b"after = 3\n",
        b"ready = { log = '(' }\n", b"ready_timeout = -1\n", b"limits = { nofile = -5 }\n", b"[services.x]\n",
        b'[services.x]\ncommand = "a"\nafter = ["nobody"]\n', b'[services.x]\ncommand = "a"\nafter = ["x"]\n',
        f'[services.{last}]\ncommand = "twice"\n'.encode(), b'[services."a b"]\ncommand = "a"\n',
        b"nice = " + b"9" * 5000 + b"\n", b"x = " + b"[" * 20_000 + b"\n", b"x = " + b"{a=" * 3_000 + b"\n",
        b"a" + b".a" * 5_000 + b" = 1\n", b"[" + b"a." * 5_000 + b"a]\n", b'x = "\xff\xfe"\n', b'x = "\x00"\n',
        b'x = "never closed\n', b"x = 'a\rb'\n", b"[services.x]\ncommand = ''\n", b"services = 1\n",
        b'[services.x]\ncommand = "${nothing.of.it}"\n', b'[services.x]\ncommand = "${"\n',
        b'[services.x]\ncommand = "a"\nstop = { signal = "NOPE" }\n', b"[novad]\nrequires = '>= 99'\n",
        b'[services.x]\ncommand = "a"\nready_timeout = 1e400\n', b'[services.x]\ncommand = "a"\nreplicas = -1\n',
    ]  # fmt: skip


def _scratch(data: bytes, dice: random.Random) -> bytes:
    """A few bytes of it deleted, doubled, swapped or overwritten."""
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data))
        end = at + dice.randint(1, 12)
        piece = data[at:end]
        new = dice.choice(
            [b"", piece * 2, piece[::-1], bytes(dice.randrange(256) for _ in piece), b'"', b"\n", b"["]
        )
        data = data[:at] + new + data[end:]
    return data


def _mutant(model: Model, dice: random.Random) -> bytes:
    """A text that is most likely wrong."""
    text = _text(model).encode()
    roll = dice.random()
    if roll < 0.5:
        return text + dice.choice(_bad_tails(dice, [*model["services"]][-1]))
    if roll < 0.55:
        return dice.choice(
            [b"", b"\xef\xbb\xbf\x00", b"\n" * 1000, b"[services]\n", text.decode().encode("utf-16")]
        )
    # The victims' ways to be seen stay as they are.
    head, mark, tail = text.partition(b"[services.")
    return head + mark + _scratch(tail, dice)


# --- The oracle ---------------------------------------------------------------------------------------------


def _births(model: Mapping[str, Any], blind: str) -> dict[str, str]:
    """What each service is born with, from the TOML alone, as one text."""
    found = {}
    for name, service in model["services"].items():
        born = {key: service.get(key) for key in BORN_WITH}
        born["env"] = {**model.get("env", {}), **service.get("env", {})}
        found[name] = json.dumps({key: value for key, value in born.items() if key != blind}, sort_keys=True)
    return found


def _is_observable(data: bytes, model: Model) -> bool:
    """Whether what the text makes can be judged from outside: it is no TOML, or its victims are the model's."""
    try:
        parsed = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return True
    try:
        return set(parsed) == {"env", "services"} and all(
            service["env"]["VICTIM"] == name and service["command"] == model["services"][name]["command"]
            for name, service in parsed["services"].items()
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        # A model that no service could come from must be refused.
        return True


class Cluster:
    """The living cluster and the model that it runs."""

    def __init__(self, site: Site, blind: str) -> None:
        self._site = site
        self._blind = blind
        self.model = _base(site)
        self._write(_text(self.model).encode())
        site.ask("up", "-d")
        self._daemons = site.daemons()
        self.good = self.bad = self.restarts = 0

    def _write(self, data: bytes) -> None:
        (self._site.folder / "run").mkdir(mode=0o700, exist_ok=True)
        (self._site.folder / "nova.toml").write_bytes(data)

    def pids(self) -> dict[str, int]:
        """The one living instance of each service."""
        require(not self._site.doubled(), f"one instance each: {self._site.doubled()}")
        return {name: found[0].pid for name, found in self._site.leaders().items()}

    def offer(self, data: bytes, is_good: bool) -> None:
        """Reload this text: refused and nothing changed, or in force and exactly what must restart has."""
        before = self.pids()
        self._write(data)
        reload = self._site.novad("reload", "-y")
        _, said = reload.communicate(timeout=60)
        told = f"{said[-400:]!r} of {data[-200:]!r}"
        require("Traceback" not in said, f"no traceback: {told}")
        require(self._site.daemons() == self._daemons, f"the daemon lives: {told}")
        if reload.returncode:
            require(reload.returncode == CONFIG_FAULT and not is_good, f"exit {reload.returncode}: {told}")
            self.bad += 1
            require(self.pids() == before, f"what is refused changes nothing: {told}")
            return
        self.good += 1
        new = tomllib.loads(data.decode())
        self._check_restarts(before, new, told)
        self.model = new

    def _check_restarts(self, before: dict[str, int], new: Model, told: str) -> None:
        births, old = _births(new, self._blind), _births(self.model, self._blind)
        after = self.pids()
        require(after.keys() == births.keys(), f"those live that are in the file: {sorted(after)} {told}")
        fresh = {name for name in after if after[name] != before.get(name)}
        wanted = {name for name in births if births[name] != old.get(name)}
        require(fresh == wanted, f"exactly {sorted(wanted)} restart: {sorted(fresh)} have; {told}")
        self.restarts += len(fresh)


@experiment(
    "R25",
    "mutations of nova.toml under a living cluster",
    short={"count": 24},
    full={"count": 500},
    controls={
        "an oracle that does not see variables": {"blind": "env"},
        "an oracle that does not see commands": {"blind": "command"},
    },
)
def mutate(site: Site, count: int, blind: str = "") -> str:
    """The daemon never ends; a wrong file changes nothing; a right one restarts what is born differently."""
    dice = random.Random(25)
    cluster = Cluster(site, blind)
    for number in range(count):
        if number % 2 == 0:
            model = copy.deepcopy(cluster.model)
            # Each kind once before any comes again.
            GOOD[number // 2 % len(GOOD)](model, dice)
            cluster.offer(_text(model).encode(), is_good=True)
        else:
            data = _mutant(cluster.model, dice)
            while not _is_observable(data, cluster.model):
                data = _mutant(cluster.model, dice)
            cluster.offer(data, is_good=False)
    site.ask("down")
    require(not site.live(), "nothing is left")
    return (
        f"{cluster.good} applied, {cluster.restarts} restarts as expected; {cluster.bad} refused without effect"
    )
