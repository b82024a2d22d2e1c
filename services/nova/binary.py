"""What a binary's name means: name -> topic -> `--<topic>_manager` -> class -> kind of service.

It imports neither kind before it knows which: a service on the web does without the database.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

from nova import exception, flags

FLAGS = flags.FLAGS


def name() -> str:
    """The name this process was started by."""
    return os.path.basename(sys.argv[0])


def topic_of(binary: str) -> str:
    """`compute` of `nova-compute`."""
    return binary.rpartition("nova-")[2]


def import_class(path: str) -> Any:
    """The class (or any object) at `package.module.Name`. Raises `NoManager`, naming what is missing."""
    module_name, _, class_name = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, ValueError, AttributeError) as error:
        if isinstance(error, ImportError) and error.name and not module_name.startswith(error.name):
            raise  # the module is there; what it imports is not
        near = _nearest(path, _paths_beside(module_name, class_name))
        raise exception.NoManager(f"cannot load {path}: {error}{near}") from error


def _paths_beside(module_name: str, class_name: str) -> Iterable[str]:
    """What could be loaded instead: classes of the module, or where there is no such module, of those beside it.

    Beside a module without a package is all that is installed: of that nothing is imported to look for the class.
    """
    package, _, missing = module_name.rpartition(".")
    if not package and module_name not in sys.modules:
        return [f"{name}.{class_name}" for name in _modules_like(None, missing)]
    try:
        if module_name in sys.modules:
            names = [module_name]
        else:
            path = getattr(importlib.import_module(package), "__path__", ())
            names = [f"{package}.{name}" for name in _modules_like(path, missing)]
        modules = [importlib.import_module(name) for name in names]
    except ImportError:
        return []
    return [
        f"{each.__name__}.{name}"
        for each in modules
        for name, value in vars(each).items()
        if isinstance(value, type)
    ]


def _modules_like(path: Iterable[str] | None, missing: str) -> list[str]:
    """The nearest name of a module in the folders `path`; None: in those of sys.path."""
    found = [module.name for module in pkgutil.iter_modules(path)]
    return difflib.get_close_matches(missing, found, 1)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def manager_path(topic: str) -> str:
    """The class in `--<topic>_manager`. Raises `NoManager`, naming the flag, those that exist, and the nearest."""
    flag = f"{topic}_manager"
    if flag not in FLAGS:
        flags.DEFINE_string(flag, None, f"class that serves {topic}")
    path: str | None = FLAGS[flag]
    if not path:
        topics = [
            other.removesuffix("_manager") for other in FLAGS if other.endswith("_manager") and FLAGS[other]
        ]
        known = ", ".join(f"--{other}_manager" for other in topics)
        like = difflib.get_close_matches(topic, topics, 1)  # without nova-, which all have in common
        near = f"; did you mean nova-{like[0]}?" if like else ""
        raise exception.NoManager(f"no manager for {topic!r}: set --{flag} (known: {known}){near}")
    return path


def create(binary: str | None = None, **kwargs: Any) -> Any:
    """The service of a binary, of the kind that its manager's class asks for. Raises `NoManager`."""
    binary = binary or name()
    topic = topic_of(binary)
    path = manager_path(topic)
    if hasattr(import_class(path), "wsgi_app"):
        from nova.webservice import WSGIService as Kind
    else:
        from nova.service import Service as Kind  # type: ignore[assignment]
    return Kind.create(binary=binary, topic=topic, manager=path, **kwargs)
