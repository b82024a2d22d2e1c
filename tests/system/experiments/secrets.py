"""Secrets: in no table, no answer, no log of novad's, no journal, no report."""

from __future__ import annotations

import base64
import re
import urllib.parse
from pathlib import Path

from tests.system.board import experiment, require
from tests.system.site import Site

CANARY = "Can/{}+ry"
# Where each is said; the canaries of the first are shown where the oracle is to be proved.
PLACES = ("env", "service env", "env file", "local overlay", "profile", "shell", "option -e", "url", "argv=", "argv",
          "service url", "crashed argv", "changed", "marked")  # fmt: skip


def _canary(place: str) -> str:
    return CANARY.format(place.replace(" ", "").replace("-", "").replace("=", "E"))


def _write(site: Site, name: str, changed: str) -> None:
    quoted = {place: urllib.parse.quote(_canary(place), safe="") for place in PLACES}
    site.write_config(
        f"""{name} = "{_canary("env")}"
[novad]
secrets = ["*_DSN"]
[profile.dark.env]
SESSION_TOKEN = "{_canary("profile")}"
[services.api]
command = ["sh", "-c", "sleep 600", "api", "--password={_canary("argv=")}", "--auth-token", "{_canary("argv")}"]
env_files = ["secrets.env"]
url = "http://me:{quoted["service url"]}@localhost/"
[services.api.env]
DB_PASSWORD = "{_canary("service env")}"
ORDERS_DSN = "{_canary("marked")}"
DATABASE_URL = "pg://me:{quoted["url"]}@db/x"
[services.bad]
command = ["sh", "-c", "echo broken >&2; exit 3", "bad", "--api-key={_canary("crashed argv")}"]
restart = "no"
env = {{ AWS_SECRET_ACCESS_KEY = "{changed}" }}
"""
    )
    (site.folder / "secrets.env").write_text(f"COOKIE_SECRET='{_canary('env file')}'\n")
    (site.folder / "nova.local.toml").write_text(f'[env]\nPRIVATE_KEY = "{_canary("local overlay")}"\n')


ASKED = (
    ("status",), ("status", "api"), ("status", "bad"), ("status", "-o", "wide"), ("--json", "status"),
    ("-v", "status", "api"), ("status", "--env", "api"), ("-v", "status", "--env", "api"),
    ("--json", "status", "--env", "api"), ("status", "--timeline"), ("status", "--timeline=html"),
    ("status", "--graph"),
    ("why", "bad"), ("why", "api"), ("--json", "why", "bad"), ("why", "--all"), ("-v", "why", "bad"), ("logs",),
    ("check", "--show", "api"), ("-v", "check", "--show", "bad"), ("--json", "check", "--show", "api"),
    ("check",), ("doctor",), ("--json", "check", "--system"), ("reload", "--dry-run"),
    ("--json", "reload", "--dry-run"),
    ("-v", "reload", "-y"), ("-v", "restart", "api"),
)  # fmt: skip


@experiment(
    "R34",
    "secrets in the environment, in files, URLs and command lines",
    short={},
    full={},
    controls={"a name that says nothing": {"name": "HARMLESS"}},
)
def secrets(site: Site, name: str = "API_TOKEN") -> str:
    """No canary in anything that novad says or keeps outside of its private run directory."""
    _write(site, name, _canary("changed"))
    shell = {"GITHUB_TOKEN": _canary("shell")}
    options = ("up", "-d", "--no-wait", "-e", f"MY_PASSPHRASE={_canary('option -e')}")
    said = {"up": _say(site, options, shell, profile="dark")}
    require("ready" in said["up"] or "starting" in said["up"], f"it runs: {said['up']}")
    site.ask("wait", "api", "--for", "ready")
    _write(site, name, _canary("changed") + "2")
    for words in ASKED:
        said[" ".join(words)] = _say(site, words, shell, profile="dark")
    said["the environment of novad's own processes"] = "".join(
        Path(f"/proc/{pid}/cmdline").read_text() for pid in site.daemons()
    )
    said["down"] = _say(site, ("down",), shell)
    # `run` is a cluster of its own, with its reports.
    said["run"] = _say(
        site, ("run", "--report", "report", "--junit", "junit.xml", "--service", "api", "--", "true"), shell
    )
    kept = [path for top in (".novad", "report") for path in (site.folder / top).rglob("*") if path.is_file()]
    said |= {str(path.relative_to(site.folder)): path.read_text(errors="replace") for path in kept}
    said["junit.xml"] = (site.folder / "junit.xml").read_text()
    require(len(kept) > 4, f"there is something to look at: {kept}")
    for place in PLACES:
        for form in _forms(_canary(place)):
            found = [where for where, text in said.items() if form in text]
            require(not found, f"the secret of {place} is nowhere: {found}")
    return f"{len(PLACES)} secrets, {len(ASKED) + 3} commands, {len(kept) + 1} files: 0 hits"


def _forms(secret: str) -> set[str]:
    """As it is, quoted for a URL, in base64 (without what its neighbours change), and in JSON."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]
    return {
        secret,
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote(secret),
        encoded,
        secret.replace("/", "\\/"),
    }


def _say(site: Site, words: tuple[str, ...], shell: dict[str, str], profile: str = "") -> str:
    """All that a command prints, on both streams; whether it succeeds is not the question."""
    found = site.novad(*words, environ={**shell, **({"NOVAD_PROFILE": profile} if profile else {})})
    out, error = found.communicate(timeout=60)
    require("Traceback" not in error, f"{' '.join(words)}: {error}")
    return re.sub(r"[\r\n]+", "\n", out + error)
