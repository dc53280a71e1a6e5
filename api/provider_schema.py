"""The HTTP face of providers: their part of the file, and their condition as the whole fleet sees it."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from api.provider_limits import NOTHING, InUse, LimitObject, WindowObject
from shared.breaker import Circuit, State
from shared.catalogue import Breaker, Provider
from shared.condition import Condition, endpoint_of, model_of, quantile
from shared.gate import Seen, is_target
from shared.jobs import ApiRecord, WorkerRecord
from shared.reasons import Reason
from shared.shared_breaker import health_of
from shared.tokens import OTHERS

SETTLED_S = 1.0
"""A heartbeat that came in so long after a drain began knows of all calls that were let through before it."""

Drain = Literal["draining", "drained"]
Part = Literal["api", "worker"]

_DEFAULT = Breaker()
_BEST = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


class BreakerObject(BaseModel):
    """`target` is the provider, or `PROVIDER|MODEL` where each model has its own. `next_probe_s`: seconds until an open one lets a call try."""

    target: str
    state: State
    consecutive_failures: int
    consecutive_successes: int
    openings: int
    reason: str | None
    since: int | None
    next_probe_s: float | None

    @classmethod
    def of(cls, target: str, circuit: Circuit, now: float) -> "BreakerObject":
        health = health_of(circuit, now)
        return cls(
            target=target,
            state=health.state,
            consecutive_failures=health.failures,
            consecutive_successes=health.successes,
            openings=health.openings,
            reason=health.reason or None,
            since=int(circuit.since) or None,
            next_probe_s=None if health.next_probe_s is None else round(health.next_probe_s, 1),
        )


class OutOfService(BaseModel):
    """Kept away from jobs: all that use the present key, or those for one `model` at one `endpoint` of our API.

    One job tries at `next_probe_at`.
    """

    reason: Reason
    model: str | None
    endpoint: str | None
    code: str
    message: str
    since: int
    next_probe_at: int


class LastErrorObject(BaseModel):
    code: str
    message: str
    at: int


class HealthObject(BaseModel):
    """`success_rate` and `latency_s` are moving averages over about twenty calls.

    Quantiles and `availability` (the share of calls that were answered) look back on five minutes, and are null without calls.
    `last_minute`: about as many calls ended in the last minute.
    """

    success_rate: float
    latency_s: float | None
    availability: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    calls: int
    failures: int
    last_minute: int
    consecutive_failures: int
    answered_at: int | None
    last_error: LastErrorObject | None

    @classmethod
    def of(cls, seen: Seen) -> "HealthObject":
        c, error = seen.condition, seen.condition.last_error
        calls = seen.answered + seen.failed
        p50, p95, p99 = (_rounded(quantile(seen.buckets, q)) for q in (0.5, 0.95, 0.99))
        return cls(
            success_rate=round(c.success_rate, 4),
            latency_s=_rounded(c.latency_s) if c.answered_at else None,
            availability=round(seen.answered / calls, 4) if calls else None,
            p50_s=p50,
            p95_s=p95,
            p99_s=p99,
            calls=c.calls,
            failures=c.failures,
            last_minute=seen.last_minute,
            consecutive_failures=c.consecutive_failures,
            answered_at=int(c.answered_at) or None,
            last_error=LastErrorObject(code=error.code, message=error.message, at=int(error.at))
            if error
            else None,
        )


class TokensObject(BaseModel):
    """What a model's `answers` that were counted have taught; `*` stands for names that are merely passed on.

    `ratio`: input tokens reported / estimated. `output_tokens`: the mean of an answer. Both over about the last 50 counted.
    """

    model: str
    answers: int
    ratio: float
    output_tokens: float

    @classmethod
    def all_of(cls, provider: Provider, c: Condition) -> "list[TokensObject]":
        return [
            cls(
                model=model,
                answers=learned.calls,
                ratio=round(learned.ratio, 4),
                output_tokens=round(learned.output_tokens, 1),
            )
            for model, learned in sorted(c.tokens.items())
            if model in provider.models or model == OTHERS
        ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


class ProviderObject(BaseModel):
    """`enabled`: by the providers file and by hand. `serving`: whether a job could be sent there now. `state`: its worst breaker's.

    `in_flight` as the workers' heartbeats tell it; `limits` and `windows` by the gate's own count, the same from every process.
    `drain` is null unless it was drained by hand: `draining` while calls may be in flight there, then `drained`.
    """

    id: str
    object: Literal["provider"] = "provider"
    name: str
    kind: str
    models: list[str]
    enabled: bool
    serving: bool
    drain: Drain | None
    state: State
    in_flight: int
    limits: list[LimitObject]
    windows: list[WindowObject]
    breakers: list[BreakerObject]
    cools_down_until: int | None
    out_of_service: list[OutOfService]
    health: HealthObject
    tokens: list[TokensObject]

    @classmethod
    def of(
        cls,
        provider: Provider,
        seen: Seen,
        workers: Sequence[WorkerRecord],
        now: float,
        *,
        settings: Breaker = _DEFAULT,
        use: InUse = NOTHING,
    ) -> "ProviderObject":
        c = seen.condition
        breakers = [
            BreakerObject.of(target, circuit, now)
            for target, circuit in sorted(_breakers(provider, c, settings).items())
        ]
        cooling = max((cool.until for cool in c.cool_downs.values()), default=0.0)
        worst = max((b.state for b in breakers), key=_BEST.__getitem__)
        enabled = provider.enabled and not c.disabled
        no_key = any(
            scope.startswith("key:") and refusal.since > c.answered_at
            for scope, refusal in c.refusals.items()
        )  # else another key has served since
        return cls(
            id=provider.id,
            name=provider.name or provider.id,
            kind=provider.kind,
            models=sorted(provider.models),
            enabled=enabled,
            serving=enabled and worst is not State.OPEN and cooling <= now and not no_key,
            drain=drain_of(provider.id, c, workers),
            state=worst,
            in_flight=sum(worker.in_flight.get(provider.id, 0) for worker in workers),
            limits=use.limits,
            windows=use.windows,
            breakers=breakers,
            cools_down_until=int(cooling) if cooling > now else None,
            out_of_service=_out_of_service(c),
            health=HealthObject.of(seen),
            tokens=TokensObject.all_of(provider, c),
        )


def _breakers(provider: Provider, c: Condition, settings: Breaker) -> dict[str, Circuit]:
    """Its breakers under the present file; those of an earlier one nobody asks any more, so they stay as they were."""
    found = {
        target: circuit for target, circuit in c.breakers.items() if is_target(target, provider, settings)
    }
    return found or {provider.id: Circuit()}


def drain_of(provider_id: str, c: Condition, workers: Sequence[WorkerRecord]) -> Drain | None:
    """Drained is what no worker calls any more, each having said so by a heartbeat made after the drain began."""
    if not c.drain_since:
        return None
    empty = all(
        worker.heard_at >= c.drain_since + SETTLED_S and not worker.in_flight.get(provider_id)
        for worker in workers
    )
    return "drained" if empty else "draining"


def _out_of_service(c: Condition) -> list[OutOfService]:
    """Each model and endpoint once: of several keys, or names at the provider, the latest refusal is told."""
    latest: dict[tuple[str, str], OutOfService] = {}
    for scope, refusal in sorted(c.refusals.items(), key=lambda pair: pair[1].since):
        model, endpoint = model_of(scope), endpoint_of(scope)
        latest[model or "", endpoint or ""] = OutOfService(
            reason=Reason.KEY_REFUSED if model is None else Reason.MODEL_REFUSED,
            model=model,
            endpoint=endpoint,
            code=refusal.code,
            message=refusal.message,
            since=int(refusal.since),
            next_probe_at=int(refusal.probe_at),
        )
    return [latest[what] for what in sorted(latest)]


class ConfigObject(BaseModel):
    """The providers file as one process has it in force; `fault` is what is wrong with the one that lies there now."""

    process: str
    part: Part
    version: str | None
    loaded_at: int | None
    fault: str | None

    @classmethod
    def of(cls, record: ApiRecord | WorkerRecord, part: Part) -> "ConfigObject":
        file = record.providers_file
        return cls(
            process=record.id,
            part=part,
            version=file.version or None,
            loaded_at=int(file.loaded_at) or None,
            fault=file.fault,
        )


class ProviderList(BaseModel):
    """`data` are those of the file that this API process has in force; `config` says which that is, in each process."""

    object: Literal["list"] = "list"
    data: list[ProviderObject]
    config: list[ConfigObject]
