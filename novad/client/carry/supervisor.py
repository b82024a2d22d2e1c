"""A supervisord.conf: its [program:x] and [group:x] sections. Pure; supervisord.org/configuration.html."""

from __future__ import annotations

import configparser
import re
import shlex
from typing import Any

from novad.client.carry.draft import Carried, Draft, service_name

# %(name)s of supervisor -> what novad calls it.
EXPANSIONS = {"process_num": "${n}", "here": "${dir}", "host_node_name": "${env.HOSTNAME:-localhost}"}
EXPANSION = re.compile(r"%\((\w+)\)(?:0?\d*[ds])")
RESTART = {"true": "always", "false": "no", "unexpected": "on-failure"}
# Of no consequence here: output is always kept, in .novad/logs.
SILENT = {"redirect_stderr", "process_name", "stdout_logfile", "stderr_logfile", "stopasgroup", "killasgroup",
          "stdout_logfile_maxbytes", "stdout_logfile_backups", "stderr_logfile_maxbytes",
          "stderr_logfile_backups"}  # fmt: skip
CARRIED = {"command", "directory", "environment", "autostart", "autorestart", "numprocs", "stopsignal", "stopwaitsecs",
           "startsecs", "startretries"}  # fmt: skip


def read(text: str) -> Carried:
    """The services. Raises `ValueError` where the file cannot be read."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;", "\t;", ";"), strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    groups = _groups(parser)
    services, remarks = [], []
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind == "program":
            options = dict(parser.items(section))
            services.append(Draft(service_name(name), _keys(name, options, groups.get(name, []))))
            remarks += [
                f"{name}: {option} = {options[option]}" for option in options if option not in CARRIED | SILENT
            ]
        elif kind in ("fcgi-program", "eventlistener", "include") or section == "group:all":
            remarks.append(f"[{section}]")
    return Carried("supervisord.conf", tuple(services), remarks=tuple(remarks))


def _groups(parser: configparser.RawConfigParser) -> dict[str, list[str]]:
    """Program -> the groups that hold it."""
    found: dict[str, list[str]] = {}
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind == "group" and name != "all":
            for program in parser.get(section, "programs", fallback="").split(","):
                found.setdefault(program.strip(), []).append(service_name(name))
    return found


def _keys(name: str, options: dict[str, str], groups: list[str]) -> dict[str, Any]:
    def expanded(text: str) -> str:
        return EXPANSION.sub(lambda match: _expansion(match[1], name), text.replace("${", "$${")).replace(
            "%%", "%"
        )

    keys: dict[str, Any] = {"command": expanded(options.get("command", "true"))}
    if "directory" in options:
        keys["cwd"] = expanded(options["directory"])
    if options.get("environment"):
        keys["env"] = {key: expanded(value) for key, value in _pairs(options["environment"]).items()}
    if options.get("autostart", "true").lower() in ("false", "0", "no"):
        keys["autostart"] = False
    keys["restart"] = RESTART.get(options.get("autorestart", "unexpected").lower(), "on-failure")
    if int(options.get("numprocs", "1")) > 1:
        keys["replicas"] = int(options["numprocs"])
    stop = {"signal": options["stopsignal"].upper().removeprefix("SIG")} if "stopsignal" in options else {}
    if "stopwaitsecs" in options:
        stop["timeout"] = f"{options['stopwaitsecs']}s"
    keys |= {"stop": stop} if stop else {}
    keys |= {"ready_after": f"{options['startsecs']}s"} if "startsecs" in options else {}
    keys |= {"give_up_after": int(options["startretries"]) + 1} if "startretries" in options else {}
    return keys | ({"groups": groups} if groups else {})


def _expansion(found: str, name: str) -> str:
    if found in ("program_name", "group_name"):
        return name
    return f"${{env.{found[4:]}}}" if found.startswith("ENV_") else EXPANSIONS.get(found, f"%({found})s")


def _pairs(text: str) -> dict[str, str]:
    """`A="1",B='two, three',C=3`."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
    lexer.whitespace_split = True
    words = [word for word in lexer if word != ","]
    return {word.partition("=")[0].strip(): word.partition("=")[2] for word in words if "=" in word}
