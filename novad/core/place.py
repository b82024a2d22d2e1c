"""Where a cluster keeps its things: pure arithmetic on paths.

Two checkouts never collide, because everything is named by a hash of the real path of nova.toml and the
namespace. The run directory holds the socket and the locks; it is short because a unix socket's address holds
107 bytes on Linux and 103 on macOS (sys/un.h).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Place:
    """`run_dir` and `socket` for the daemon, `state_dir` (`.novad`) and `log_dir` for what a user keeps."""

    config: str
    dir: str
    namespace: str
    run_dir: str
    socket: str
    state_dir: str
    log_dir: str

    @property
    def journal(self) -> str:
        """The journal of this namespace, as the logs are of one."""
        suffix = "" if self.namespace == DEFAULT_NAMESPACE else f"-{self.namespace}"
        return f"{self.state_dir}/journal{suffix}.jsonl"


def place(config: str, namespace: str, runtime_dir: str | None, temporary_dir: str, uid: int) -> Place:
    """The place of the cluster of `config`, a real absolute path.

    `runtime_dir` is `$XDG_RUNTIME_DIR` if set; otherwise a directory of the user in `temporary_dir` serves,
    which whoever creates it makes with mode 0700 and checks.
    """
    identity = hashlib.sha256(f"{config}\0{namespace}".encode()).hexdigest()[:12]
    base = f"{runtime_dir}/novad" if runtime_dir else f"{temporary_dir}/novad-{uid}"
    folder = config.rpartition("/")[0] or "/"
    state_dir = f"{folder.rstrip('/')}/.novad"
    log_dir = f"{state_dir}/logs" if namespace == DEFAULT_NAMESPACE else f"{state_dir}/logs-{namespace}"
    run_dir = f"{base}/{identity}"
    return Place(config, folder, namespace, run_dir, f"{run_dir}/control", state_dir, log_dir)
