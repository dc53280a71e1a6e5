"""The witness: one entry for every call received, written before its answer goes out."""

import sys
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from shared.errors import ConfigError

DEFAULT_SIZE = 1_000_000
PROMPT_CHARS = 120

_encoder = msgspec.json.Encoder()


class Call(msgspec.Struct, gc=False):
    """One call. Until it has ended, `ended_at` is None and `status` None or, while it hangs, "hung".

    `status` is the HTTP status sent, or "dropped", "hung" (the client left a call that hung) or "client_gone" (it left
    before its answer was due). Times are Unix seconds. `completion_tokens` are those of an answer that was sent whole.
    """

    n: int
    persona: str
    received_at: float
    body_sha256: str
    prompt: str
    model: str
    prompt_tokens: int
    authorization_sha256: str | None
    ended_at: float | None = None
    status: int | str | None = None
    completion_tokens: int = 0


class Witness:
    """The last `size` calls, oldest out first; with a file, each call also stands there as a line once it has ended."""

    def __init__(self, size: int = DEFAULT_SIZE, file: Path | None = None) -> None:
        self._size = size
        self._ring: list[Call] = []
        self.count = 0
        self._file = None if file is None else _open(file)

    def receive(self, call: Call) -> Call:
        """Take a call in, under the next number."""
        call.n = self.count = self.count + 1
        if len(self._ring) < self._size:
            self._ring.append(call)
        else:
            self._ring[(call.n - 1) % self._size] = call
        return call

    def end(self, call: Call, status: int | str, completion_tokens: int = 0) -> None:
        call.status = status
        call.completion_tokens = completion_tokens
        call.ended_at = unix_now()
        if self._file is not None:
            self._write(self._file, call)

    def after(self, n: int, limit: int) -> list[Call]:
        """At most `limit` calls with numbers above `n`, in order; those that are no longer kept are left out."""
        first = max(n + 1, self.count - len(self._ring) + 1, 1)
        last = min(self.count, first + limit - 1)
        return [self._ring[(number - 1) % self._size] for number in range(first, last + 1)]

    def clear(self) -> None:
        """Forget every call and count from 1 again; the file is left as it is."""
        self._ring = []
        self.count = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, file: BinaryIO, call: Call) -> None:
        try:
            file.write(_encoder.encode(call) + b"\n")
        except OSError as exc:
            sys.stderr.write(
                f"llm-edge simulate: --log {file.name}: {exc.strerror}; no more is written there\n"
            )
            self.close()


def unix_now() -> float:
    """Unix seconds, to the microsecond."""
    return time.time_ns() // 1000 / 1e6


@lru_cache(maxsize=1024)
def fingerprint(authorization: bytes) -> str:
    """The first 8 hex digits of an Authorization header's sha256: tells keys apart and keeps them secret."""
    return sha256(authorization).hexdigest()[:8]


def _open(file: Path) -> BinaryIO:
    """Unbuffered: what has ended is in the file, even after kill -9. Raises ConfigError."""
    try:
        return file.open("ab", buffering=0)
    except OSError as exc:
        raise ConfigError([f"--log {file}: {exc.strerror}"]) from exc
