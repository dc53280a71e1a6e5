"""The gate on Redis or Valkey: one script call for any number of asks and reports, and Redis' own TIME the only clock."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import redis

from shared import breaker, condition, limits, tokens, window
from shared.catalogue import Breaker
from shared.condition import Condition
from shared.gate import (
    ON_THE_GROUND,
    WAKE_MOST,
    Action,
    Ask,
    Change,
    Exchanged,
    Flight,
    Report,
    Seen,
    Verdict,
)
from shared.keys import Keys
from shared.limits import Kind
from shared.redis_client import store_errors
from shared.scripts import Scripts

SENDER_TTL_S = 3600
WAKE_S = 2.0
"""What waited for a provider that serves again comes back within this time, spread out evenly."""

_WOKEN_KEPT_S = 60  # whoever was told to wait before has long said so to the ledger
_WAKING = {"wake_s": WAKE_S, "wake_most": WAKE_MOST, "woken_kept_s": _WOKEN_KEPT_S}
_NUMBERS = {
    "slot_s": condition.SLOT_S,
    "window_s": condition.WINDOW_S,
    "alpha": condition.ALPHA,
    "cool_s": condition.COOL_DOWN_S,
    "most_cool_s": condition.MAX_COOL_DOWN_S,
    "most_rest_s": condition.MOST_REST_S,
    "breaker_slots": breaker.SLOTS,
    "sender_ttl_s": SENDER_TTL_S,
    "silent_s": limits.SILENT_S,
    "busy_s": limits.BUSY_S,
    "busy_spread_s": limits.BUSY_SPREAD_S,
    "money_kept_s": limits.MONEY_KEPT_S,
    "ended_kept_s": limits.ENDED_KEPT_S,
    "window_cut": window.CUT,
    "window_slow_cut": window.SLOW_CUT,
    "window_slow": window.SLOW,
    "window_best_drift": window.BEST_DRIFT,
    "window_nearly_full": window.NEARLY_FULL,
    "window_generous": window.GENEROUS,
    "window_counting_s": window.COUNTING_S,
    "window_least_s": window.LEAST_S,
    "window_recently_s": window.RECENTLY_S,
    "window_timeouts": dict.fromkeys(sorted(window.TIMEOUTS), True),
    "tokens_window": tokens.WINDOW,
    "tokens_most": tokens.MOST_MODELS,
    **_WAKING,
}


class _Reply(msgspec.Struct, array_like=True):
    """`Exchanged`, its conditions as JSON."""

    now: float
    verdicts: tuple[Verdict, ...]
    charged: tuple[bool, ...]
    changes: tuple[Change, ...]
    conditions: tuple[tuple[str, str], ...]


_exchanged = msgspec.msgpack.Decoder(_Reply)
_changes = msgspec.msgpack.Decoder(list[Change])
_condition = msgspec.json.Decoder(Condition)


class RedisGate:
    """The contract: `shared.gate.Gate`. `client` must not repeat commands by itself."""

    def __init__(self, client: redis.Redis, prefix: str = "le") -> None:
        self._redis = client
        self._keys = Keys(prefix)
        self._run: Callable[..., Any] = Scripts(client, prefix).run

    def exchange(
        self,
        asks: Sequence[Ask],
        reports: Sequence[Report],
        *,
        settings: Breaker,
        sender: str,
        serial: int,
        spread: float,
        flight: Flight = ON_THE_GROUND,
    ) -> Exchanged:
        raw = self._run(
            "gate",
            asks=list(asks),
            reports=list(reports),
            settings=settings_of(settings),
            sender=sender,
            serial=serial,
            spread=spread,
            **({"held": {scope: n for scope, n in flight.held.items() if n}} if flight.held else {}),
            **({"adaptive": True} if flight.adaptive else {}),
            **_NUMBERS,
        )
        told = _exchanged.decode(raw)
        conditions = tuple((name, _condition.decode(found)) for name, found in told.conditions)
        return Exchanged(told.now, told.verdicts, told.charged, told.changes, conditions)

    def change(
        self, provider: str, action: Action, *, settings: Breaker, target: str = "", most: int = WAKE_MOST
    ) -> list[Change]:
        raw = self._run(
            "gate_change",
            provider=provider,
            action=action,
            target=target,
            settings=settings_of(settings),
            **{**_WAKING, "wake_most": most},
        )
        return _changes.decode(raw)

    def conditions(self, providers: Sequence[str]) -> dict[str, Condition]:
        with store_errors():
            rows = self._redis.mget([self._keys.provider(name) for name in providers]) if providers else []
        return {
            name: _condition.decode(row) for name, row in zip(providers, rows, strict=True) if row is not None
        }

    def look(self, providers: Sequence[str]) -> tuple[float, list[Seen]]:
        with store_errors():
            seconds, micros = self._redis.time()
            now = seconds + micros / 1e6
            last = int(now // condition.SLOT_S)
            pipe = self._redis.pipeline(transaction=False)
            for provider in providers:
                pipe.get(self._keys.provider(provider))
                for slot in range(last - condition.SLOTS + 1, last + 1):
                    pipe.hgetall(self._keys.sketch(provider, slot))
            rows = pipe.execute()
        each = condition.SLOTS + 1
        return now, [_seen(rows[i], rows[i + 1 : i + each], now) for i in range(0, len(rows), each)]

    def taken(self, counted: Sequence[tuple[Kind, str]]) -> tuple[float, list[float]]:
        with store_errors():
            seconds, micros = self._redis.time()
            pipe = self._redis.pipeline(transaction=False)
            for kind, scope in counted:
                if kind == "concurrency":
                    pipe.hgetall(self._keys.flight(scope))
                else:
                    pipe.get(self._keys.counter(kind, scope))
            rows = pipe.execute()
        now = seconds + micros / 1e6
        return now, [_in_flight(row, now) if isinstance(row, dict) else float(row or 0.0) for row in rows]


def settings_of(settings: Breaker) -> dict[str, Any]:
    """As the scripts read them: what is not set is not there."""
    return settings.model_dump(exclude_none=True)


def _in_flight(row: Mapping[bytes, bytes], now: float) -> float:
    """Of senders that are heard of; as `lua/_limits.lua` counts them."""
    told = (value.split() for value in row.values())
    return float(sum(int(n) for n, at in told if float(at) + limits.SILENT_S > now))


def _seen(raw: bytes | None, slots: Sequence[dict[bytes, bytes]], now: float) -> Seen:
    counts = {b"answered": 0, b"failed": 0}
    buckets: dict[int, int] = {}
    for slot in slots:
        for name, value in slot.items():
            if name in counts:
                counts[name] += int(value)
            else:
                buckets[int(name)] = buckets.get(int(name), 0) + int(value)
    known = _condition.decode(raw) if raw else Condition()
    previous, present = (sum(int(slot.get(name, 0)) for name in counts) for slot in slots[-2:])
    late = condition.last_minute(previous, present, now)
    return Seen(known, counts[b"answered"], counts[b"failed"], buckets, late)
