"""Globs over paths."""

from __future__ import annotations

import pytest

from novad.core.glob import base, compiled


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("/p/a.py", ["/p/a.py"], ["/p/aXpy", "/p/a.pyc", "/q/p/a.py"]),
        ("/p/*.py", ["/p/a.py", "/p/.py"], ["/p/b/a.py", "/p/a.py/b"]),
        ("/p/**/*.py", ["/p/a.py", "/p/b/a.py", "/p/b/c/a.py"], ["/q/a.py", "/p/a.txt"]),
        ("/p/**", ["/p/a", "/p/b/c"], ["/q"]),
        ("/p/", ["/p/a", "/p/b/c"], ["/p", "/pa"]),
        ("/p/a**b", ["/p/ab", "/p/axb"], ["/p/a/b"]),
        ("/p/?", ["/p/a"], ["/p/", "/p/ab", "/p//"]),
        ("/p/[ab].py", ["/p/a.py"], ["/p/c.py"]),
        ("/p/[!ab]", ["/p/c"], ["/p/a", "/p//"]),
        ("/p/[]x]", ["/p/]", "/p/x"], ["/p/a"]),
        ("/p/[^a]", ["/p/^", "/p/a"], ["/p/b"]),
        ("/p/[", ["/p/["], ["/p/a"]),
        ("/p/[z-a]", ["/p/[z-a]"], ["/p/b"]),
        ("/p/a+b(c)", ["/p/a+b(c)"], ["/p/aab(c)"]),
        ("/p/**/x/**/*.py", ["/p/x/a.py", "/p/1/x/2/3/a.py"], ["/p/y/a.py"]),
    ],
)
def test_a_glob_matches_whole_paths(glob: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes if not compiled(glob).match(path)] == []
    assert [path for path in no if compiled(glob).match(path)] == []


@pytest.mark.parametrize(
    ("glob", "directory"),
    [("/p/q/*.py", "/p/q"), ("/p/**/a", "/p"), ("/p/a.py", "/p"), ("/p/q/", "/p/q"), ("/*.py", "/")],
)
def test_the_base_is_the_directory_above_all_matches(glob: str, directory: str) -> None:
    assert base(glob) == directory
