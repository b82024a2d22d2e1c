"""A web service for a crowd: answers that take time, answers that are large. `--keeps_idle` breaks its stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nova import flags, green, manager, wsgi

FLAGS = flags.FLAGS
flags.DEFINE_bool("keeps_idle", False, "connections without a request are not ended by a stop")
flags.DEFINE_float("answer_s", 1.0, "how long an answer takes")

PART = b"x" * 65536
PARTS = 64

if FLAGS.keeps_idle:
    wsgi.end_softly = lambda connection: None


class Crowd(manager.WebManager):
    def wsgi_app(self) -> Any:
        return self._answer

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/large":
            start_response("200 OK", [("Content-Length", str(len(PART) * PARTS))])
            return iter([PART] * PARTS)
        if environ["PATH_INFO"] == "/slow":
            green.sleep(FLAGS.answer_s)
        start_response("200 OK", [("Content-Length", "2")])
        return iter([b"ok"])
