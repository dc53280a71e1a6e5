"""The stores a suite runs on: memory twins or a real Valkey, each with a way to let time pass."""

import time
from collections.abc import Callable

import msgspec

from shared.files import Files
from shared.idempotency import Idempotency
from shared.ledger import Ledger
from shared.lone import LoneJobs


class Stores(msgspec.Struct):
    ledger: Ledger
    lone: LoneJobs
    files: Files
    idempotency: Idempotency
    pass_time: Callable[[float], None]
    kind: str
    now: Callable[[], float]
    listen: Callable[[str], Callable[[], None]]
    """Makes a caller that can be told of results; what it returns makes it deaf again."""


def really_wait(seconds: float) -> None:
    """On a real server only Redis' own clock counts, so its time must really pass."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)  # the one sleep: time itself is what is waited for
