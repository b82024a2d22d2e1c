"""`python -m nova nova-compute [flags]`: a binary by its name, where none is installed."""

from __future__ import annotations

import sys

from nova.launch import main

if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].startswith("nova-"):
        sys.exit("usage: python -m nova nova-NAME [--flag=value ...]")
    main(sys.argv[1:])
