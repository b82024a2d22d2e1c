"""What a compilation is asked for, and the names that are known before it has begun."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from novad.config.environment import Variables, of_shell
from novad.config.world import World


@dataclass(frozen=True)
class Request:
    """What a compilation depends on besides the files; see `compile_cluster`."""

    config: str
    namespace: str
    environ: Mapping[str, str]
    run_dir: str
    state_dir: str
    log_dir: str
    profile: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    taken_ports: Mapping[str, int] = field(default_factory=dict)
    scale: Mapping[str, int] = field(default_factory=dict)
    taken_scale: Mapping[str, int] = field(default_factory=dict)
    use_local: bool = True
    python: str = sys.executable
    is_isolated: bool = False

    @property
    def dir(self) -> str:
        return os.path.dirname(self.config)

    @property
    def chosen_profile(self) -> str:
        return self.profile or self.environ.get("NOVAD_PROFILE", "")

    @property
    def reads_local(self) -> bool:
        return self.use_local and self.environ.get("NOVAD_LOCAL") != "0"

    def world(self, variables: Variables) -> World:
        """The names that are known before there are processes."""
        fixed = {"dir": self.dir, "run_dir": self.run_dir, "namespace": self.namespace}
        return World(fixed, of_shell(self.environ), variables)
