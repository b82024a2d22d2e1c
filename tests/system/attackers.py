"""Clients of a control socket that mean harm: `python -m tests.system.attackers SOCKET '{"silent": 500}'`.

So many connections of each kind below, all at once; what nobody cuts off is held for `HOLD_S`. The result is one line
of JSON: for each kind how many there were, how many were cut off or answered, and after how long the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HOLD_S = 14.0
REQUEST = b'{"v": 1, "id": 7, "verb": "%s", "args": %s}\n'


def request(verb: bytes, args: bytes = b"{}") -> bytes:
    return REQUEST % (verb, args)


# Kind -> what it says; nothing more comes after it. None of them is owed a connection.
ONCE: dict[str, bytes] = {
    "silent": b"",
    "half a frame": b'{"v": 1, "id": 7, "verb": "sta',
    "blank lines": b"\n" * 4096,
    "garbage": bytes(range(256)) * 16 + b"\n",
    "deep JSON": b"[" * 200_000 + b"\n",
    "deep arguments": request(b"status", b'{"names": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "no object": b"[1, 2, 3]\n",
    "no verb": b'{"v": 1, "id": 7}\n',
    "NaN": request(b"stop", b'{"names": ["v0"], "timeout_s": NaN}'),
    "infinity": request(b"stop", b'{"names": ["v0"], "timeout_s": 1e999}'),
    "a long number": b'{"v": 1, "id": %s, "verb": "status"}\n' % (b"9" * 5000),
    "a reply": b'{"id": 7, "result": {}}\n' + b'{"v": 1, "id": 7, "ver',
}
# Kind -> a request that has an answer, an error for the most part.
ANSWERED: dict[str, bytes] = {
    "surrogates": request(b"status", rb'{"names": ["\ud800\udfff\ud800"]}'),
    "escapes": request(b"status", rb'{"names": ["\u001b]0;owned\u0007\u0000"]}'),
    "a dunder": request(b"__class__"),
    "another protocol": b'{"v": 99, "id": 7, "verb": "status", "args": {}}\n',
    "a large integer": request(b"stop", b'{"names": ["v0"], "timeout_s": %s}' % (b"9" * 400)),
    "wrong types": request(b"start", b'{"names": [{}], "once": "yes", "deps": []}'),
    "a cluster of nonsense": request(b"reload", b'{"cluster": {"schema": 1, "processes": [[[]]]}}'),
    "descriptors": request(b"ping"),
}
# Kinds that do something as long as they may.
BUSY = ("a gigabyte", "a byte at a time", "questions without end", "half closed", "reset")


def mixture(count: int) -> Counter[str]:
    """Of each kind some: most of ten thousand only stand around, and of what is dear there is enough to hurt."""
    kinds, standing = [*ONCE, *ANSWERED, *BUSY], ["silent", "half a frame", "blank lines"]
    chance = random.Random(29)
    return Counter(kinds + [chance.choice(kinds if n < 300 else standing) for n in range(count - len(kinds))])


@dataclass
class Attack:
    kind: str
    sock: socket.socket
    began_s: float
    ended_s: float | None = None
    sent: int = 0


class Attackers:
    def __init__(self, path: str, counts: Mapping[str, int]) -> None:
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._null = os.open("/dev/null", os.O_RDONLY)
        self._kinds = [kind for kind, count in counts.items() for _ in range(count)]
        random.Random(29).shuffle(self._kinds)
        self.attacks: list[Attack] = []
        self._began_s = 0.0

    def run(self) -> None:
        """All of them, until the last is cut off or answered, or `HOLD_S` after the time of the last began."""
        waiting = iter(self._kinds)
        more, next_drip_s = True, 0.0
        while more or (self._selector.get_map() and time.monotonic() < self._began_s + HOLD_S):
            for kind in _few(waiting, 50):
                self._begin(kind)
                self._began_s = time.monotonic()
            more = len(self.attacks) < len(self._kinds)
            for key, events in self._selector.select(0.0 if more else 0.1):
                self._serve(key.data, events)
            if time.monotonic() >= next_drip_s:
                next_drip_s = time.monotonic() + 0.2
                self._drip()

    def _begin(self, kind: str) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        attack = Attack(kind, sock, time.monotonic())
        self.attacks.append(attack)
        self._selector.register(sock, selectors.EVENT_READ, attack)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._open_with(attack)

    def _open_with(self, attack: Attack) -> None:
        sock = attack.sock
        if attack.kind == "descriptors":
            socket.send_fds(sock, [ANSWERED[attack.kind]], [self._null] * 200)
        elif attack.kind in ONCE or attack.kind in ANSWERED:
            sock.sendall(ONCE.get(attack.kind, b"") or ANSWERED.get(attack.kind, b""))
        elif attack.kind == "half closed":
            sock.sendall(b'{"v": 1, "id"')
            sock.shutdown(socket.SHUT_WR)
        elif attack.kind == "reset":
            # To leave with unread answers is a reset on a unix socket.
            sock.sendall(request(b"status") * 10)
            self._end(attack)
        elif attack.kind == "questions without end":
            # Not read: its end is noticed when it cannot be written to any more.
            self._selector.modify(sock, selectors.EVENT_WRITE, attack)
        elif attack.kind == "a gigabyte":
            self._selector.modify(sock, selectors.EVENT_WRITE | selectors.EVENT_READ, attack)
        if attack.ended_s is None:
            sock.setblocking(False)

    def _drip(self) -> None:
        for attack in self.attacks:
            if attack.kind == "a byte at a time" and attack.ended_s is None:
                self._write(attack, b"x")

    def _serve(self, attack: Attack, events: int) -> None:
        if attack.ended_s is not None:
            return
        if events & selectors.EVENT_WRITE:
            text = request(b"status") * 100 if attack.kind == "questions without end" else b"0" * 65536
            self._write(attack, text)
        if events & selectors.EVENT_READ and attack.ended_s is None:
            self._read(attack)

    def _write(self, attack: Attack, data: bytes) -> None:
        try:
            attack.sent += attack.sock.send(data)
            if attack.kind == "questions without end":
                # Its time begins when its questions are not taken any more.
                attack.began_s = self._began_s = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self._end(attack)

    def _read(self, attack: Attack) -> None:
        try:
            data = attack.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or (attack.kind in ANSWERED and b"\n" in data):
            self._end(attack)

    def _end(self, attack: Attack) -> None:
        attack.ended_s = time.monotonic()
        self._selector.unregister(attack.sock)
        attack.sock.close()

    def result(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for attack in self.attacks:
            row = found.setdefault(attack.kind, {"count": 0, "ended": 0, "last_s": 0.0, "sent": 0})
            row["count"] += 1
            row["sent"] = max(row["sent"], attack.sent)
            if attack.ended_s is not None:
                row["ended"] += 1
                row["last_s"] = max(row["last_s"], round(attack.ended_s - attack.began_s, 3))
        return found


def _few(items: Iterator[str], count: int) -> list[str]:
    return [item for _, item in zip(range(count), items, strict=False)]


if __name__ == "__main__":
    attackers = Attackers(sys.argv[1], json.loads(sys.argv[2]))
    print("begin", flush=True)
    attackers.run()
    print(json.dumps(attackers.result()), flush=True)
