"""`python -m tests.docs.pages`: write the pages that are made from code. `PAGES` maps a path to what makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from novad import __version__
from novad.client.commands import VERBS
from novad.client.reference import commands_page, man_page
from novad.config.manual import page

ROOT = Path(__file__).parents[2]

PAGES: dict[str, Callable[[], str]] = {
    "docs/commands.md": lambda: commands_page(VERBS),
    "docs/nova-toml.md": page,
    "docs/novad.1": lambda: man_page(VERBS, __version__),
}


def main() -> None:
    for path, make in PAGES.items():
        (ROOT / path).write_text(make())
        print(path)


if __name__ == "__main__":
    main()
