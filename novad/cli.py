"""The command line."""

from __future__ import annotations

import click

from novad import __version__


@click.group()
@click.version_option(__version__, "-V", "--version")
def main() -> None:
    """Runs the processes of a development cluster."""
