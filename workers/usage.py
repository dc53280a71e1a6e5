"""What a call takes of the limits, estimated before it and known after it; and what it teaches for the next estimate. Pure."""

import zlib
from collections.abc import Callable
from decimal import Decimal

from shared.catalogue import Ceilings, Provider
from shared.jobs import Usage
from shared.limits import Kind, Limit, Limits, provider_scope
from shared.money import to_nanos
from shared.permits import Permit
from shared.tokens import WINDOW, Learned, Lesson, measure
from workers.provider import TokenUsage

SAMPLED = 8
"""Of a model that enough is known of, one answer in so many teaches: counting is not free."""


def counted(used: TokenUsage) -> Usage:
    return Usage(
        input_tokens=used.prompt_tokens,
        cached_tokens=used.cached_tokens,
        output_tokens=used.completion_tokens,
        reasoning_tokens=used.reasoning_tokens,
    )


def limits_of(provider: Provider, asked: str, tokens: int) -> Limits | None:
    """Those of the provider and of the model `asked` for, as the file has them, and what one call takes of each."""
    limits, name = provider.limits, provider.limited_as(asked)
    rows = _rows(provider_scope(provider.id), limits, tokens)
    if name is not None:
        rows += _rows(provider_scope(provider.id, name), limits.models[name], tokens)
    return rows or None


def _rows(scope: str, own: Ceilings, tokens: int) -> Limits:
    rows: tuple[tuple[Kind, float, int | None], ...] = (
        ("rpm", 1.0, own.rpm),
        ("tpm", float(min(tokens, own.tpm or 0)), own.tpm),  # no float holds all that can be asked for
        ("concurrency", 1.0, own.concurrency),
    )
    return tuple(
        Limit(scope, kind, amount, float(ceiling)) for kind, amount, ceiling in rows if ceiling is not None
    )


def used_by(permit: Permit, usage: TokenUsage, cost: Callable[[], Decimal | None]) -> dict[str, float] | None:
    """What an answered call took of the limits that it was under. `cost` is asked for where money is limited."""
    kinds = {limit.kind for limit in (*(permit.candidate.limits or ()), *(permit.limits or ()))}
    used: dict[str, float] = {}
    if "tpm" in kinds and usage.known:
        used["tpm"] = float(usage.prompt_tokens + usage.completion_tokens)
    if "money" in kinds and (usd := cost()) is not None:
        used["money"] = float(to_nanos(usd))
    return used or None


def lesson_of(permit: Permit, body: bytes, usage: TokenUsage, learned: Learned) -> Lesson | None:
    """What an answered call teaches of its model, of which `learned` is known so far; None where it is not looked at, or says nothing."""
    if not usage.known or usage.prompt_tokens == 0:
        return None
    if learned.calls >= WINDOW and zlib.crc32(permit.id.encode()) % SAMPLED:
        return None
    measured = measure(body)
    if measured.media:  # of which the estimate is none
        return None
    return Lesson(measured.input_tokens, measured.answers, usage.prompt_tokens, usage.completion_tokens)
