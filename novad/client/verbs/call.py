"""`novad call TOPIC METHOD k=v k:=json`: an RPC, by the command that nova.toml names in `[novad] call`.

novad speaks no RPC itself. The command gets TOPIC METHOD and the values as they are written, with --timeout, --cast,
--fanout and --full where they are given, in the directory and the environment of the cluster; its exit code is the
answer. What was called once is completed the next time.
"""

from __future__ import annotations

import json
import subprocess
import time

from novad.client.app import App
from novad.client.calls import remember
from novad.client.owned import addresses
from novad.core.errors import NovadError, UsageError
from novad.core.spec import Cluster, cluster_from_json

TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127
# The command gives up by itself; one that does not is ended this much later.
GRACE_S = 3.0


def run(
    app: App,
    topic: str,
    method: str,
    values: tuple[str, ...],
    timeout: float | None,
    cast: bool,
    fanout: bool,
    full: bool,
) -> int:
    if cast and fanout:
        raise UsageError("--cast and --fanout exclude one another", "--fanout reaches every process of the topic")
    for word in values:
        check_value(word)
    cluster = loaded(app)
    if not cluster.call:
        raise UsageError(
            f"{app.config_name()} names no command for calls", '[novad] call = ["nova-manage", "rpc"]'
        )
    words = [*cluster.call, topic, method, *values]
    words += [flag for flag, is_given in (("--cast", cast), ("--fanout", fanout), ("--full", full)) if is_given]
    words += [] if timeout is None else ["--timeout", f"{timeout:g}"]
    code = execute(app, words, cluster, timeout)
    if code == 0:
        remember(app, topic, method)
    return code


def loaded(app: App) -> Cluster:
    """The cluster that runs. Raises `NotRunning`."""
    with app.link() as link:
        data = link.request("spec")["cluster"]
    if data is None:
        raise NovadError("no cluster is loaded", f"{app.command_name()} up")
    return cluster_from_json(data)


def check_value(word: str) -> None:
    """Raises `UsageError` where `word` is neither NAME=TEXT nor NAME:=JSON."""
    name, sign, text = word.partition("=")
    if not sign or not name.rstrip(":").isidentifier():
        raise UsageError(
            f"`{word}` is neither NAME=TEXT nor NAME:=JSON",
            "novad call compute get_console_output instance_id:=7",
        )
    if name.endswith(":"):
        try:
            json.loads(text)
        except ValueError as error:
            raise UsageError(f"`{word}` is not JSON: {error}", f"{name[:-1]}={text} sends it as text") from error


def execute(app: App, words: list[str], cluster: Cluster, timeout: float | None) -> int:
    """Runs the command on this terminal; its exit code, 124 where the time ran out."""
    place = app.place()
    env = {**cluster.env, **addresses(cluster), "NOVAD_FILE": place.config, "NOVAD_NAMESPACE": place.namespace}
    if app.options.verbose:
        app.terminal.err(f"→ {' '.join(words)}")
    began_s = time.monotonic()
    limit_s = None if timeout is None else timeout + GRACE_S
    try:
        code = subprocess.run(words, cwd=cluster.dir, env=env, timeout=limit_s, check=False).returncode
    except subprocess.TimeoutExpired:
        app.terminal.err(f"error: {words[0]} did not answer within {timeout:g} s")
        return TIMED_OUT
    except OSError as error:
        app.terminal.err(f"error: {words[0]}: {(error.strerror or str(error)).lower()}")
        app.terminal.note(f"hint: [novad] call in {app.config_name()} names it")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    if code and timeout is not None and time.monotonic() - began_s >= timeout:
        return TIMED_OUT
    return code if code >= 0 else 128 - code
