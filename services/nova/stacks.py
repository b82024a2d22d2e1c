"""What every greenlet and thread of this process is doing, as text. Any thread may ask."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from nova import green


def text(title: str, lines: Iterable[str] = ()) -> str:
    """`title`, then `lines` (calls in flight, for one), then the stacks."""
    parts = [f"==== {title}", *lines]
    for thread_id, frame in sys._current_frames().items():
        parts += [f"-- thread {thread_id}", *_frames(frame)]
    for number, (greenlet, frame) in enumerate(_greenlets(), start=1):
        parts += [f"-- greenlet {number} {_what(greenlet)}", *_frames(frame)]
    parts.append("==== end")
    return "\n".join(parts) + "\n"


def _greenlets() -> list[tuple[Any, Any]]:
    """The greenlets that wait; the one that runs is its thread's stack."""
    found = []
    for item in gc.get_objects():
        if isinstance(item, green.greenlet):
            frame = item.gr_frame
            if frame is not None:
                found.append((item, frame))
    return found


def _what(greenlet: Any) -> str:
    return type(greenlet).__name__


def _frames(frame: Any) -> list[str]:
    return [line.rstrip("\n") for line in traceback.format_stack(frame)]
