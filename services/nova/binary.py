"""What a binary's name means: name -> topic -> `--<topic>_manager` -> class -> kind of service.

It imports neither kind before it knows which: a service on the web does without the database.
"""

from __future__ import annotations

import importlib
import os
import sys
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
        raise exception.NoManager(f"cannot load {path}: {error}") from error


def manager_path(topic: str) -> str:
    """The class in `--<topic>_manager`. Raises `NoManager`, naming the flag and those that exist."""
    flag = f"{topic}_manager"
    if flag not in FLAGS:
        flags.DEFINE_string(flag, None, f"class that serves {topic}")
    path: str | None = FLAGS[flag]
    if not path:
        known = ", ".join(f"--{other}" for other in FLAGS if other.endswith("_manager") and FLAGS[other])
        raise exception.NoManager(f"no manager for {topic!r}: set --{flag} (known: {known})")
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
