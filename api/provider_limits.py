"""The HTTP face of a provider's limits: what the file allows, what the whole fleet has in use of it, and adaptive windows."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel

from shared.catalogue import Catalogue, Ceilings, Provider
from shared.condition import Condition
from shared.gate import Gate, is_target
from shared.limits import Kind, Limit, bucket_size, free_at, not_back, provider_scope
from shared.window import Window, scope_of


class LimitObject(BaseModel):
    """`kind`: rpm, tpm (requests, tokens a minute) or concurrency (calls at a time). `in_use` and `room` are the whole fleet's.

    `model`: whose own it is; null where it is the provider's.

    Of concurrency: the calls in flight, of `limit`. Of a rate: what the bucket has given out and not got back yet, of what it
    holds (`room`: a second's worth); more where one call took more than that. `next_in_s`: until another may begin.
    """

    model: str | None
    kind: Kind
    limit: int
    in_use: float
    room: float
    next_in_s: float | None

    @classmethod
    def of(cls, model: str | None, limit: Limit, stands: float, now: float) -> "LimitObject":
        if limit.kind == "concurrency":
            room, in_use, next_in_s = limit.ceiling, stands, None
        else:
            room, in_use = bucket_size(limit.ceiling), not_back(stands, limit.ceiling, now)
            next_in_s = round(max(0.0, free_at(stands, limit) - now), 3)
        return cls(
            model=model,
            kind=limit.kind,
            limit=int(limit.ceiling),
            in_use=round(in_use, 2),
            room=round(room, 2),
            next_in_s=next_in_s,
        )


class WindowObject(BaseModel):
    """How many calls at a time the fleet has found a `target` to bear; `size` is null while it only counts.

    A target is the provider, or `PROVIDER|MODEL` where each model has a breaker of its own. `changed_at`: when it was cut last.
    """

    target: str
    size: float | None
    in_flight: int
    changed_at: int

    @classmethod
    def of(cls, target: str, found: Window, in_flight: float) -> "WindowObject":
        size = round(found.size, 1) or None
        return cls(target=target, size=size, in_flight=int(in_flight), changed_at=int(found.cut_at))


class InUse(NamedTuple):
    limits: list[LimitObject]
    windows: list[WindowObject]


NOTHING = InUse([], [])


def in_use(
    gate: Gate, catalogue: Catalogue, providers: Sequence[Provider], conditions: Sequence[Condition]
) -> list[InUse]:
    """Of each provider, by one look at the gate's own counters. Raises StoreUnavailableError."""
    rows = [_limits(provider) for provider in providers]
    windows = [_windows(catalogue, *pair) for pair in zip(providers, conditions, strict=True)]
    counted: list[tuple[Kind, str]] = [(limit.kind, limit.scope) for row in rows for _, limit in row]
    counted += [("concurrency", scope_of(target)) for found in windows for target in found]
    if not counted:
        return [NOTHING] * len(rows)
    now, numbers = gate.taken(counted)
    stands = iter(numbers)
    limits = [[LimitObject.of(*named, next(stands), now) for named in row] for row in rows]
    shown = [[WindowObject.of(t, w, next(stands)) for t, w in found.items()] for found in windows]
    return [InUse(*pair) for pair in zip(limits, shown, strict=True)]


def _limits(provider: Provider) -> list[tuple[str | None, Limit]]:
    """As the workers ask for them: one call, one token. With the model whose own they are."""
    own = provider.limits
    found = _rows(None, provider_scope(provider.id), own)
    for model, ceilings in own.models.items():
        found += _rows(model, provider_scope(provider.id, model), ceilings)
    return found


def _rows(model: str | None, scope: str, own: Ceilings) -> list[tuple[str | None, Limit]]:
    rows: tuple[tuple[Kind, int | None], ...] = (
        ("rpm", own.rpm),
        ("tpm", own.tpm),
        ("concurrency", own.concurrency),
    )
    return [(model, Limit(scope, kind, 1.0, float(ceiling))) for kind, ceiling in rows if ceiling is not None]


def _windows(catalogue: Catalogue, provider: Provider, c: Condition) -> dict[str, Window]:
    """Those that count under the present file."""
    if not catalogue.adaptive_concurrency or provider.limits.concurrency is not None:
        return {}
    return {t: w for t, w in sorted(c.windows.items()) if is_target(t, provider, catalogue.breaker)}
