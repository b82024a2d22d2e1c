"""Another user of the machine: reads nothing, changes nothing, is told nothing."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.system.board import Skip, experiment, require
from tests.system.site import Site

SECRET = "canary-of-the-environment"


class Intruder:
    """What another uid tries, all that it can name from outside: `try_all` counts what succeeded."""

    def __init__(self, folder: Path, run_dir: Path) -> None:
        self._folder, self._run, self._state = folder, run_dir, folder / ".novad"
        self.succeeded: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    def try_all(self) -> None:
        daemons, children = self._pids()
        base, control = self._run.parent, self._run / "control"
        self._try("connect to the control socket", lambda: self._ask(control))
        self._try("connect under its other name", lambda: self._ask(self._run / "control.new"))
        self._try("notify for a service", lambda: self._notify(self._run / "notify"))
        for folder in (self._run, base, self._state, self._state / "logs"):
            self._try(f"list {folder.name}", partial(self._does, partial(os.listdir, folder)))
            self._try("plant a file", partial(self._plant, folder / "planted"))
        for name in ("cluster.json", "lock", "records/v.json", "locks/v", "guardian"):
            self._try(f"read {name}", partial(self._does, (self._run / name).read_bytes))
        for name in ("journal.jsonl", "novad.log", "logs/v.log", "history", "names"):
            self._try(f"read {name}", partial(self._does, (self._state / name).read_bytes))
        self._try("plant a link for the log", lambda: self._link(self._state / "logs" / "w.log"))
        self._try("swap the socket", lambda: self._swap(control))
        self._try("remove the socket", partial(self._does, control.unlink))
        self._try("hold the lock", partial(self._does, partial(os.open, self._run / "lock", os.O_RDWR)))
        log, name = self._state / "logs/v.log", f"/tmp/link-{os.getpid()}"
        self._try("link a log", partial(self._does, partial(os.link, log, name)))
        for pid in daemons + children:
            for name in ("environ", "fd", "mem", "maps"):
                self._try(f"read /proc/PID/{name}", partial(self._look, pid, name))
            self._try("signal", partial(self._does, partial(os.kill, pid, signal.SIGTERM)))

    def try_sockets(self) -> None:
        self._try("connect to the control socket", lambda: self._ask(self._run / "control"))
        self._try("notify for a service", lambda: self._notify(self._run / "notify"))

    def _try(self, name: str, act: Callable[[], bool]) -> None:
        self.tried[name] += 1
        try:
            self.succeeded[name] += act()
        except OSError:
            pass

    def _pids(self) -> tuple[list[int], list[int]]:
        """Command lines are everybody's to read."""
        daemons, children = [], []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(self._run) in words:
                    daemons.append(int(name))
                elif words.endswith(b"\0" + os.fsencode(self._folder.name) + b"\0"):
                    children.append(int(name))
        return daemons, children

    def _ask(self, path: Path) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2.0)
            sock.connect(str(path))
            try:
                sock.sendall(b'{"v": 1, "id": 1, "verb": "status", "args": {}}\n')
                return bool(sock.recv(65536))
            except TimeoutError:
                return False

    def _notify(self, path: Path) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1\nSTATUS=intruded", str(path))
        return False

    def _plant(self, path: Path) -> bool:
        path.write_text("planted")
        path.unlink()
        return True

    def _link(self, path: Path) -> bool:
        path.symlink_to("/etc/passwd")
        return True

    def _swap(self, path: Path) -> bool:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{folder}/mine")
            os.rename(f"{folder}/mine", path)
        return True

    def _does(self, act: Callable[[], object]) -> bool:
        act()
        return True

    def _look(self, pid: int, name: str) -> bool:
        path = Path(f"/proc/{pid}/{name}")
        if name == "fd":
            return bool(os.listdir(path))
        with path.open("rb") as file:
            return bool(file.read(1))


def _intrude(intruder: Intruder, act: Act, uid: int, stop_fd: int, result_fd: int) -> None:
    """In a process of its own, until `stop_fd` is readable; the counts go to `result_fd`."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    while not select.select([stop_fd], [], [], 0.0)[0]:
        act(intruder)
    os.write(result_fd, json.dumps([intruder.tried, intruder.succeeded]).encode())


Act = Callable[[Intruder], None]


class Attack:
    """An intruder at work beside the caller."""

    def __init__(self, site: Site, uid: int, act: Act) -> None:
        stop_fd, self._stop_fd = os.pipe()
        self._result_fd, result_fd = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                intruder = Intruder(site.folder, Path(site.running.place.run_dir))
                _intrude(intruder, act, uid, stop_fd, result_fd)
                code = 0
            finally:
                os._exit(code)
        os.close(stop_fd)
        os.close(result_fd)

    def end(self) -> tuple[Counter[str], Counter[str]]:
        """What it tried and what succeeded, by name."""
        os.write(self._stop_fd, b"x")
        with open(self._result_fd, "rb") as file:
            text = file.read()
        os.waitpid(self._pid, 0)
        os.close(self._stop_fd)
        tried, succeeded = json.loads(text)
        return Counter(tried), +Counter(succeeded)


def _somebody_else() -> int:
    if os.getuid() != 0:
        raise Skip("only root can become another user")
    return pwd.getpwnam("nobody").pw_uid


@experiment(
    "R31",
    "another user of the machine, while the cluster comes and goes",
    short={"starts": 2},
    full={"starts": 50},
    controls={"directories that are open": {"starts": 1, "open_dirs": True}},
)
def other_user(site: Site, starts: int, open_dirs: bool = False) -> str:
    """Nothing that it tries succeeds; at a socket that is open it gets no answer; what it planted is refused."""
    uid = _somebody_else()
    # What is above belongs to the harness: only novad's own modes are to hold the intruder off.
    site.folder.chmod(0o755)
    program = f'["/bin/sh", "-c", "echo said; sleep 600 & wait", "{site.folder.name}"]'
    site.write_config(f'[services.v]\ncommand = {program}\nenv = {{ TOKEN = "{SECRET}", VICTIM = "v" }}\n')
    (site.folder / "run").chmod(0o755)
    attack = Attack(site, uid, Intruder.try_all)
    try:
        for _ in range(starts):
            site.ask("up", "-d")
            if open_dirs:
                _open(site)
                site.bell.hear_for(0.5)
            else:
                _check_modes(site)
            site.ask("down")
    finally:
        tried, succeeded = attack.end()
    require(not succeeded, f"nothing succeeds: {dict(succeeded)}")
    require(not (site.folder / ".novad/logs/w.log").is_symlink(), "nothing was planted")
    asked = _at_open_sockets(site, uid)
    planted = [_is_harmless(site, name) for name in PLANTED]
    return (
        f"{sum(tried.values())} attempts of {len(tried)} kinds in {starts} starts, 0 succeeded; {asked} at open "
        f"sockets, none answered; {len(planted)} planted links and files ({sum(planted)} refused), nothing written "
        "through them"
    )


def _open(site: Site) -> None:
    """What a careless `chmod -R` does."""
    run_dir = Path(site.running.place.run_dir)
    for folder in (run_dir.parent, run_dir, site.folder / ".novad", site.folder / ".novad/logs"):
        folder.chmod(0o755)
    for path in (site.folder / ".novad").rglob("*.log"):
        path.chmod(0o644)


def _check_modes(site: Site) -> None:
    """Nobody else has any right at anything that novad made."""
    base = Path(site.running.place.run_dir).parent
    for top in (base, site.folder / ".novad"):
        for path in (top, *top.rglob("*")):
            mode = path.lstat().st_mode
            require(not mode & 0o077, f"{path} is nobody else's: {mode:o}")


def _at_open_sockets(site: Site, uid: int) -> int:
    """With modes opened by hand the peer's uid still decides. How often it was tried."""
    site.ask("up", "-d")
    _open(site)
    run_dir = Path(site.running.place.run_dir)
    for name in ("control", "notify"):
        (run_dir / name).chmod(0o777)
    attack = Attack(site, uid, Intruder.try_sockets)
    site.bell.hear_for(0.5)
    tried, succeeded = attack.end()
    rows = json.loads(site.ask("--json", "status"))["processes"]
    site.ask("down")
    require(not succeeded, f"it is not answered: {dict(succeeded)}")
    require(tried["notify for a service"] > 5, f"it got to the sockets: {dict(tried)}")
    require("intruded" not in json.dumps(rows), "who is not the service's user speaks for no service")
    return sum(tried.values())


def _link_run_dir(site: Site, victim: Path) -> None:
    run_dir = Path(site.running.place.run_dir)
    run_dir.parent.mkdir(mode=0o700, exist_ok=True)
    run_dir.symlink_to(victim.parent)


def _link_base(site: Site, victim: Path) -> None:
    Path(site.running.place.run_dir).parent.symlink_to(victim.parent)


def _foreign_base(site: Site, victim: Path) -> None:
    base = Path(site.running.place.run_dir).parent
    base.mkdir()
    os.chown(base, 12345, 12345)


def _file_for_base(site: Site, victim: Path) -> None:
    Path(site.running.place.run_dir).parent.write_text("in the way")


def _link(name: str, to_folder: bool = False) -> Callable[[Site, Path], None]:
    def plant(site: Site, victim: Path) -> None:
        path = site.folder / ".novad" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(victim.parent if to_folder else victim)

    return plant


def _link_state(site: Site, victim: Path) -> None:
    (site.folder / ".novad").symlink_to(victim.parent)


# What is there before the start, by somebody else or out of a repository.
PLANTED: dict[str, Callable[[Site, Path], None]] = {
    "the run directory, a link": _link_run_dir,
    "the base, a link": _link_base,
    "the base, of another user": _foreign_base,
    "the base, a file": _file_for_base,
    "the state directory, a link": _link_state,
    "the log directory, a link": _link("logs", to_folder=True),
    "a log, a link": _link("logs/v.log"),
    "the journal, a link": _link("journal.jsonl"),
    "novad's log, a link": _link("novad.log"),
    "the names, a link": _link("names"),
    "the ignore file, a link": _link(".gitignore"),
}


def _is_harmless(site: Site, name: str) -> bool:
    """Whether `up` refuses to start over what is planted, by name; in no case is anything else written."""
    base = Path(site.running.place.run_dir).parent
    for path in (base, site.folder / ".novad", site.folder / "elsewhere"):
        shutil.rmtree(path, ignore_errors=True)
    victim = site.folder / "elsewhere" / "mine"
    victim.parent.mkdir()
    victim.write_text("as it was")
    PLANTED[name](site, victim)
    process = site.novad("up", "-d")
    _, error = process.communicate(timeout=60)
    refused = process.returncode != 0
    if refused:
        require(str(site.folder) in error and "Traceback" not in error, f"{name}: the path is named: {error}")
    else:
        site.ask("down")
    for path in (base, site.folder / ".novad"):
        if path.is_symlink() or path.is_file():
            path.unlink()
    require(
        [*victim.parent.iterdir()] == [victim], f"{name}: nothing is made elsewhere: {[*victim.parent.iterdir()]}"
    )
    require(victim.read_text() == "as it was", f"{name}: nothing is written elsewhere: {victim.read_text()!r}")
    shutil.rmtree(base, ignore_errors=True)
    return refused
