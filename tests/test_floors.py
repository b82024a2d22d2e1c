"""The floors of the house: which package may import which, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Package -> what it may import of the project. A longer prefix wins. The README's diagram is this table.
FLOORS: dict[str, set[str]] = {
    "novad": set(),
    "novad.__main__": {"novad.cli"},
    "novad.core": {"novad.core"},
    "novad.config": {"novad", "novad.core", "novad.config"},
    "novad.host": {"novad.core", "novad.host"},
    "novad.client": {"novad", "novad.core", "novad.client"},
    "novad.daemon": {"novad", "novad.core", "novad.host", "novad.daemon"},
    "novad.testing": {"novad", "novad.core", "novad.client", "novad.config", "novad.testing"},
    "novad.cli": {"novad", "novad.core", "novad.client", "novad.config", "novad.daemon", "novad.cli"},
    "nova": {"nova"},
    "nova.lifecycle": set(),
    "nova.broker": {
        "nova.broker",
        "nova.exposition",
        "nova.green",
        "nova.flags",
        "nova.service",
        "nova.manager",
        "nova.notify",
        "nova.rpc.wire",
    },
}

# What `core` may use of the standard library: nothing that touches the world.
PURE = {
    "__future__", "ast", "bisect", "collections", "dataclasses", "difflib", "enum", "fnmatch", "functools",
    "hashlib", "heapq", "itertools", "json", "math", "random", "re", "shlex", "string", "textwrap", "types",
    "typing", "collections.abc",
}  # fmt: skip

EVENTLET_HOMES = ("novad.host", "novad.daemon", "nova.green")


def modules() -> list[tuple[str, Path]]:
    found = []
    for base, folder in ((ROOT, "novad"), (ROOT / "services", "nova")):
        for path in sorted((base / folder).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def allowed(module: str) -> set[str]:
    package = max((p for p in FLOORS if is_inside(module, p)), key=len)
    return FLOORS[package]


def violations(module: str, imported: set[str]) -> list[str]:
    bad = []
    for name in sorted(imported):
        top = name.split(".")[0]
        if top in ("novad", "nova"):
            permitted = allowed(module)
            # `novad` itself stands for `from novad import __version__`, not for every module below it.
            fine = name == "novad.__version__" and "novad" in permitted
            if not fine and not any(is_inside(name, p) for p in permitted if p != "novad"):
                bad.append(f"{module} imports {name}")
        elif module.startswith("novad.core") and not (top in PURE or name in PURE):
            bad.append(f"{module} imports {name}: core is pure")
        elif top == "eventlet" and not any(is_inside(module, home) for home in EVENTLET_HOMES):
            bad.append(f"{module} imports {name}: eventlet lives in {', '.join(EVENTLET_HOMES)}")
    return bad


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(module: str, path: Path) -> None:
    assert violations(module, imports(path)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("novad.core.machine", "os"),
        ("novad.core.machine", "novad.host.child"),
        ("novad.client.link", "eventlet"),
        ("novad.client.link", "novad.daemon"),
        ("novad.host.child", "novad.config.load"),
        ("nova.service", "novad.core.wire"),
        ("novad.cli", "nova.service"),
        ("nova.service", "eventlet"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, imported: str) -> None:
    assert violations(module, {imported})


def test_the_nova_package_is_empty_so_that_nothing_is_imported_before_the_patch() -> None:
    assert (ROOT / "services/nova/__init__.py").read_text() == ""
    assert not (ROOT / "services/__init__.py").exists()


def floors_table() -> str:
    """The table of docs/architecture.md."""
    rows = ["| package | may import of the project |", "|---|---|"]
    for package, below in FLOORS.items():
        names = sorted(name for name in below if name != package)
        rows.append(f"| `{package}` | {', '.join(f'`{name}`' for name in names) or 'nothing'} |")
    return "\n".join(rows)


def test_the_table_in_the_documentation_is_the_one_that_is_enforced() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    shown = text.split("<!-- floors -->\n", 1)[1].split("<!-- /floors -->", 1)[0]
    assert shown.strip() == floors_table(), "print floors_table() into docs/architecture.md"
