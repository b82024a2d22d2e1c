"""Reading the files of a configuration: nova.toml, what it includes, nova.local.toml, environment files.

Every file is read once. What cannot be read or parsed is a fault, and the rest is read all the same, so that one
report shows all of it.
"""

from __future__ import annotations

import glob
import io
import os
from dataclasses import dataclass, field, replace
from typing import Any

import tomli

from novad.config import syntax
from novad.config.interpolate import Lookup, Unresolved, expand
from novad.config.report import Fault
from novad.config.source import Source, Span
from novad.config.tree import BASE, LOCAL, Layer, Node, build, merge, on_layer, put
from novad.core import texts

LOCAL_NAME = "nova.local.toml"
MAX_BYTES = 4 * 1024 * 1024  # nobody writes this much by hand; a wrong path such as a disk image ends here


@dataclass
class Files:
    """All that was read so far: texts by path, and the faults met on the way."""

    dir: str
    texts: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    absent: dict[str, None] = field(default_factory=dict)  # read if they had been there, in the order of asking
    globs: dict[str, None] = field(
        default_factory=dict
    )  # what `include` asks for, absolute, in the order of asking
    is_complete: bool = True  # False once a file is missing from the picture: then names may be unknown for that

    def toml(self, path: str, layer: Layer, asked_by: Fault | None = None) -> Node | None:
        """The normalised tree of a TOML file; None where it cannot be had. `asked_by` shows who wanted it."""
        text = self.text(path, asked_by)
        source = Source(path, self.shown(path), text or "")
        if text is None:
            self.is_complete = False
            return None
        try:
            tree = build(tomli.loads(text), source)
        except (ValueError, RecursionError) as error:
            self.faults.append(syntax.fault(source, error))
            self.is_complete = False
            return None
        return normalise(on_layer(tree, layer))

    def text(self, path: str, asked_by: Fault | None = None) -> str | None:
        """The text of a file with newlines as TOML wants them."""
        source = Source(path, self.shown(path), "")
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise OSError("it is not a file")  # a pipe or a device might never end
            with open(path, "rb") as file:
                raw = file.read(MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise OSError(f"it is larger than {MAX_BYTES // 1024**2} MiB")
            text = texts.text(raw)
        except OSError as error:
            reason = error.strerror.lower() if error.strerror else str(error)
            message = f"cannot read {source.shown}: {reason}"
            self.faults.append(replace(asked_by, message=message) if asked_by else Fault(message))
            return None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self.faults.append(Fault(f"{source.shown} is not UTF-8 (line {line})", source))
            return None
        self.texts[path] = text
        return text

    def is_there(self, path: str) -> bool:
        """Whether there is such a file; of one that may be missing it is remembered that it was."""
        if os.path.exists(path):
            return True
        self.absent[path] = None
        return False

    def shown(self, path: str) -> str:
        """The path as reports name it: relative to nova.toml where it is below."""
        inside = os.path.relpath(path, self.dir)
        return path if inside.startswith("..") else inside


def normalise(root: Node) -> Node:
    """The tree with its shorthands written out: a service that is a string, a watch that is a list."""
    profiles = root.get("profile")
    if profiles is not None:
        root = _with(root, "profile", _mapped(profiles, _normalise_level))
    return _normalise_level(root)


def _normalise_level(node: Node) -> Node:
    for key, change in (("services", lambda services: _mapped(services, _service)), ("defaults", _service)):
        inner = node.get(key)
        if inner is not None:
            node = _with(node, key, change(inner))
    return node


def _service(node: Node) -> Node:
    if isinstance(node.value, str):
        return Node({"command": node}, node.origin)
    watch = node.get("watch")
    if watch is not None and isinstance(watch.value, list):
        return _with(node, "watch", Node({"globs": watch}, watch.origin))
    return node


def _mapped(node: Node, change: Any) -> Node:
    if not isinstance(node.value, dict):
        return node
    return replace(node, value={key: change(inner) for key, inner in node.value.items()})


def _with(node: Node, key: str, inner: Node) -> Node:
    return replace(node, value={**node.value, key: inner})


def read(config: str, lookup: Lookup, use_local: bool) -> tuple[Files, list[Node]]:
    """nova.toml with its includes, then nova.local.toml where there is one: the trees in rising precedence."""
    files = Files(os.path.dirname(config))
    base = files.toml(config, BASE)
    trees = []
    if base is not None:
        trees.append(_included(files, base, lookup))
    local = os.path.join(files.dir, LOCAL_NAME)
    if use_local and files.is_there(local):
        overlay = files.toml(local, LOCAL)
        if overlay is not None:
            trees.append(overlay)
    return files, trees


def _included(files: Files, base: Node, lookup: Lookup) -> Node:
    include = base.get("novad", "include")
    if include is None or not isinstance(include.value, list):
        return base
    for item in include.value:
        if isinstance(item.value, str):
            for path in _matches(files, item, lookup):
                node = files.toml(path, BASE, item.origin.fault(""))
                if node is not None:
                    base = _added(files, base, node)
    return base


def _matches(files: Files, item: Node, lookup: Lookup) -> list[str]:
    try:
        pattern = expand(item.value, lookup)
    except Unresolved as error:
        span = item.text_at(error.fragment)
        files.faults.append(Fault(f"novad.include: {error.message}", item.origin.source, span, error.help))
        return []
    name = pattern.removesuffix("?")
    if glob.has_magic(name):
        local = os.path.join(files.dir, LOCAL_NAME)  # an overlay, not a part
        whole = os.path.join(glob.escape(files.dir), name)
        files.globs[whole] = None
        matching = glob.glob(whole, recursive=True)
        found = sorted(path for path in map(os.path.normpath, matching) if path != local)
    else:
        wanted = os.path.normpath(os.path.join(files.dir, name))
        found = [] if pattern.endswith("?") and not files.is_there(wanted) else [wanted]
    return [path for path in found if path not in files.texts]


# Tables in which an included file may add entries; everything else in it must be new as a whole.
OPEN_TABLES = ("services", "groups", "env", "profile")


def _added(files: Files, base: Node, extra: Node) -> Node:
    """`base` and what `extra` adds to it; what both define is a fault that names both places."""
    for key, inner in extra.table().items():
        if key == "novad":
            files.faults.append(inner.origin.fault("an included file has no [novad]", on_key=True))
            continue
        mine = base.get(key)
        if (
            mine is None
            or key not in OPEN_TABLES
            or not (isinstance(mine.value, dict) and isinstance(inner.value, dict))
        ):
            if mine is None:
                base = merge(base, Node({key: inner}, base.origin))
            else:
                files.faults.append(_twice(key, mine, inner))
            continue
        for name, item in inner.value.items():
            if name in mine.value:
                files.faults.append(_twice(f"{key}.{name}", mine.value[name], item))
            else:
                base = put(base, (key, name), item)
    return base


def _twice(name: str, first: Node, second: Node) -> Fault:
    return second.origin.fault(
        f"`{name}` is defined twice",
        f"first defined at {first.origin}; an included file may add but not redefine",
        on_key=True,
    )


def environment_file(files: Files, item: Node, name: str) -> dict[str, tuple[str, Source, Span]]:
    """The variables of an environment file named at `item`; values are literal, `${...}` means nothing there."""
    from dotenv.parser import parse_stream

    path = os.path.normpath(os.path.join(files.dir, name.removesuffix("?")))
    if name.endswith("?") and not files.is_there(path):
        return {}
    optional = 'end the name with "?" if it may be missing'
    text = files.texts.get(path)
    text = files.text(path, item.origin.fault("", optional)) if text is None else text
    if text is None:
        return {}
    source = Source(path, files.shown(path), text)
    found = {}
    at = 0
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        start = at + len(original) - len(original.lstrip())
        at += len(original)
        span = Span(start, start + len(original.strip().partition("\n")[0]))
        if binding.error or (binding.key is not None and "\0" in original):
            files.faults.append(Fault("expected a line such as NAME=value", source, span))
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = (binding.value, source, span)
    return found
