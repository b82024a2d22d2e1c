"""The flags of a process, from four layers: command line, environment, file, default. See `nova.flags`."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli

from nova import exception
from nova.flagtypes import Flag

SECRET = "********"

# What twistd and python-daemon took, and what a supervisor does now; refused, so that nobody believes it works.
REMOVED = frozenset(
    """
    pidfile guid uid gid euid daemonize nodaemon no_daemon logdir logfile log_file logger syslog working_directory
    prefix umask chroot rundir reactor no_save nosave originalname encrypted file python savestats profile
    profiler spew
    """.split()  # noqa: SIM905
)
_REFERENCE = re.compile(r"\$(?:\$|([a-z][a-z0-9_]*)|\{([a-z][a-z0-9_]*)\})")


@dataclass(slots=True)
class _Given:
    """A raw value and where it was found."""

    raw: Any
    source: str


class FlagValues:
    """All flags of this process."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._flags: dict[str, Flag] = {}
        self._layers: list[dict[str, _Given]] = [{}, {}, {}]  # command line, environment, file
        self._section_keys: set[str] = set()
        self._overrides: dict[str, Any] = {}
        self._values: dict[str, tuple[Any, str]] = {}
        self._section: str | None = None
        self._parsed = False

    def __call__(self, argv: Sequence[str], *, late: bool = False, section: str | None = None) -> list[str]:
        """Take the flags out of `argv` and return what is left, the program's name first.

        `section` is the table of the file that counts for this process. Raises `FlagError`.
        """
        if argv and argv[0].startswith("--"):
            raise exception.FlagError(f"argv[0] is the program's name, not {argv[0]}")
        self._section = section
        command_line, rest = _split(argv[1:], self._flags)
        self._layers[0] = command_line
        self._read_environment()
        self._layers[2], self._section_keys = self._read_file()
        self._parsed = True
        self._resolve_all()
        if not late:
            self.finish()
        return [*argv[:1], *rest]

    def define(self, flag: Flag) -> None:
        """Add a flag. Raises `FlagError` when its name has another definition, or a given value is bad."""
        known = self._flags.get(flag.name)
        if known == flag:
            return
        if known is not None:
            raise exception.FlagError(f"--{flag.name} is defined twice, differently")
        self._flags[flag.name] = flag
        if flag.kind == "bool":
            self._adopt_negation(flag.name)
        self._values[flag.name] = self._resolve(flag)

    def finish(self) -> None:
        """Refuse what nobody defined. Raises `FlagError` with the nearest name."""
        for name, given in self._layers[0].items():
            if name not in self._flags:
                raise self._unknown(name, given.source)
        for name in sorted(self._section_keys):
            if name not in self._flags:
                raise self._unknown(name, self._layers[2][name].source)

    def unknown_in_file(self) -> list[str]:
        """Sentences about keys of the file that this process does not know; they may be another binary's."""
        strange = [name for name in self._layers[2] if name not in self._flags]
        return [str(self._unknown(name, self._layers[2][name].source)) for name in sorted(strange)]

    def reload(self) -> tuple[list[str], list[str]]:
        """Read the file again: (names that changed, names that changed but need a restart).

        Raises `FlagError`, and then nothing has changed.
        """
        before = self._layers[2]
        self._layers[2], section_keys = self._read_file()
        try:
            fresh = {name: self._resolve(flag) for name, flag in self._flags.items()}
        except exception.FlagError:
            self._layers[2] = before
            raise
        self._section_keys = section_keys
        moved = [name for name in sorted(fresh) if fresh[name][0] != self._values[name][0]]
        changed = [name for name in moved if self._flags[name].mutable]
        self._values.update({name: fresh[name] for name in changed})
        return changed, [name for name in moved if name not in changed]

    @contextlib.contextmanager
    def override(self, **values: Any) -> Iterator[None]:
        """Values for the time of a `with` block, over every other source; for tests. Raises `FlagError`."""
        before = dict(self._overrides)
        for name, value in values.items():
            if name not in self._flags:
                raise self._unknown(name, "override")
            self._overrides[name] = value
        try:
            yield
        finally:
            self._overrides = before

    def set_default(self, name: str, value: Any) -> None:
        """Change a flag's default, as a binary does that wants another one. Raises `FlagError`."""
        flag = self._flags.get(name)
        if flag is None:
            raise self._unknown(name, "default")
        self._flags[name] = Flag(name, flag.kind, value, flag.help, flag.parse, flag.mutable, flag.secret)
        self._values[name] = self._resolve(self._flags[name])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.value(name)

    def __getitem__(self, name: str) -> Any:
        return self.value(name)

    def __contains__(self, name: str) -> bool:
        return name in self._flags

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._flags))

    def value(self, name: str) -> Any:
        """The value of a flag, references replaced. Raises `AttributeError` with the nearest name."""
        if name in self._overrides:
            return self._interpolate(self._overrides[name], (name,))
        try:
            value = self._values[name][0]
        except KeyError:
            raise AttributeError(str(self._unknown(name, "the program"))) from None
        return self._interpolate(value, (name,))

    def source(self, name: str) -> str:
        """Where the value came from: `default`, `file PATH`, `environment NOVA_X`, `command line`, `override`."""
        return "override" if name in self._overrides else self._values[name][1]

    def dump(self) -> str:
        """One line a flag: name, value, source; secrets masked."""
        lines = []
        for name in self:
            flag, value = self._flags[name], self.value(name)
            shown = SECRET if flag.secret and value else repr(value)
            if isinstance(value, str) and not flag.secret:
                shown = mask_url_password(shown)
            lines.append(f"{name} = {shown}  # {self.source(name)}{'' if not flag.mutable else ', mutable'}")
        return "\n".join(lines) + "\n"

    def usage(self, program: str) -> str:
        """The text of `--help`."""
        lines = [f"usage: {program} [--flag=value ...]", ""]
        for name in self:
            flag = self._flags[name]
            default = SECRET if flag.secret and flag.default else repr(flag.default)
            lines.append(f"  --{name} ({flag.kind}, default {default})\n        {flag.help}")
        return "\n".join(lines) + "\n"

    def _read_environment(self) -> None:
        found = {}
        for key, text in self._environ.items():
            if key.startswith("NOVA_"):
                found[key.removeprefix("NOVA_").lower()] = _Given(text, f"environment {key}")
        self._layers[1] = found

    def _read_file(self) -> tuple[dict[str, _Given], set[str]]:
        given = self._layers[0].get("config_file") or self._layers[1].get("config_file")
        if given is None or not given.raw:
            return {}, set()
        path = str(given.raw)
        try:
            with open(path, "rb") as stream:
                data = tomli.load(stream)
        except OSError as error:
            raise exception.FlagError(f"--config_file {path}: {error.strerror}") from error
        except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
            raise exception.FlagError(f"--config_file {path}: {error}") from error
        found = {key: _Given(value, f"file {path}") for key, value in data.items() if not isinstance(value, dict)}
        table = data.get(self._section or "", {})
        own = set(table) if isinstance(table, dict) else set()
        found.update({key: _Given(table[key], f"file {path} [{self._section}]") for key in own})
        return found, own

    def _adopt_negation(self, name: str) -> None:
        """`--nofoo` was given before `foo` was known to be a bool."""
        negated = self._layers[0].pop(f"no{name}", None)
        if negated is not None:
            self._layers[0][name] = _Given("false", negated.source)

    def _resolve_all(self) -> None:
        self._values = {name: self._resolve(flag) for name, flag in self._flags.items()}

    def _resolve(self, flag: Flag) -> tuple[Any, str]:
        for layer in self._layers if self._parsed else ():
            given = layer.get(flag.name)
            if given is not None:
                try:
                    return flag.parse(given.raw), given.source
                except ValueError as error:
                    shown = SECRET if flag.secret else repr(given.raw)
                    raise exception.FlagError(f"--{flag.name}: {error}, got {shown} ({given.source})") from None
        return flag.default, "default"

    def _interpolate(self, value: Any, seen: tuple[str, ...]) -> Any:
        if not isinstance(value, str) or "$" not in value:
            return value

        def replaced(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name is None:
                return "$"
            if name in seen:
                raise exception.FlagError(f"--{seen[0]}: ${name} refers to itself")
            if name not in self._flags:
                return match[0]
            raw = self._overrides[name] if name in self._overrides else self._values[name][0]
            return str(self._interpolate(raw, (*seen, name)))

        return _REFERENCE.sub(replaced, value)

    def _unknown(self, name: str, source: str) -> exception.FlagError:
        return exception.FlagError(objection(name, self._flags, source))


def objection(name: str, known: Iterable[str], source: str = "command line") -> str:
    """Why a flag is refused that is not among those `known`."""
    if name in REMOVED:
        return f"--{name} was removed: your supervisor does this"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean --{near[0]}?" if near else ""
    return f"unknown flag --{name} ({source}){hint}"


def mask_url_password(text: str) -> str:
    """`scheme://user:password@host` with the password hidden."""
    return re.sub(r"(\w+://[^/\s:@]*:)[^@/\s]+@", rf"\1{SECRET}@", text)


def _split(argv: Sequence[str], flags: Mapping[str, Flag]) -> tuple[dict[str, _Given], list[str]]:
    """(flags given, what is left). An unknown flag takes the next word unless that is a flag itself."""
    given: dict[str, _Given] = {}
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return given, rest + words
        if not word.startswith("--"):
            rest.append(word)
            continue
        name, has_value, text = word[2:].partition("=")
        name = name.replace("-", "_")
        name = "config_file" if name == "flagfile" else name
        if name in REMOVED and name not in flags:
            raise exception.FlagError(objection(name, flags))
        flag = flags.get(name)
        if flag is None and name.startswith("no") and getattr(flags.get(name[2:]), "kind", "") == "bool":
            given[name[2:]] = _Given("false", "command line")
        elif has_value:
            given[name] = _Given(text, "command line")
        elif flag is not None and flag.kind == "bool":
            given[name] = _Given("true", "command line")
        elif words and not words[0].startswith("--"):
            given[name] = _Given(words.pop(0), "command line")
        elif flag is not None:
            raise exception.FlagError(f"--{name} needs a value")
        else:
            given[name] = _Given("true", "command line")
    return given, rest
