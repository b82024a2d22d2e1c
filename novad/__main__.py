"""The `novad` command. Half of a short one is the loading of code, and a fifth of that would be the collector."""

from __future__ import annotations

import gc


def run() -> None:
    """Load the command line without looking for garbage: what is loaded stays to the end. Exits."""
    gc.disable()
    from novad.cli import main

    gc.freeze()
    gc.enable()
    main()


if __name__ == "__main__":
    run()
