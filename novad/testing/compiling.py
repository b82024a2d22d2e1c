"""The configuration compiler for those who have no command line: the part of it that a test run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novad.core.place import Place
from novad.core.spec import Cluster


class Compiling:
    def compile(
        self, place: Place, *, profile: str | None, overrides: dict[str, str], taken_ports: dict[str, int],
        scale: dict[str, int], environ: Mapping[str, str], is_isolated: bool = False,
    ) -> Cluster:  # fmt: skip
        from novad.config.load import compile_cluster

        return compile_cluster(
            place.config, namespace=place.namespace, profile=profile, overrides=overrides, environ=environ,
            run_dir=place.run_dir, state_dir=place.state_dir, log_dir=place.log_dir, taken_ports=taken_ports,
            scale=scale, is_isolated=is_isolated,
        )  # fmt: skip


def compiler() -> Any:
    return Compiling()
