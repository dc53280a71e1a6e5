"""The condition of one provider, as the whole fleet sees it: its breakers, its health, what keeps it out of service. Pure.

Three things can keep a job from a provider, and none is another: a breaker that is open (the provider fails), a cool-down
(it answered 429), and being out of service (our key is refused, nothing is left to spend, a model is not there for us).
"""

import math

import msgspec

from shared.breaker import Circuit
from shared.tokens import NOTHING_LEARNED, Learned, Lesson, entry_of
from shared.window import Window

ALPHA = 0.1
"""Weight of the newest call in the moving averages: about the last twenty count."""

COOL_DOWN_S = 0.5
MAX_COOL_DOWN_S = 30.0
MOST_REST_S = 60.0
"""A 5xx with `Retry-After` rests its provider no longer than this: it may be one request's trouble."""

"""For a 429 that does not say how long: `min(0.5 x 2^n, 30)` for the n-th in a row."""


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """Redacted and bounded where it was made."""

    code: str
    message: str
    at: float


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why jobs of this scope are kept away, since when, and from when on one of them tries whether that is still so."""

    code: str
    message: str
    since: float
    probe_at: float


class CoolDown(msgspec.Struct, frozen=True, kw_only=True):
    """No calls before `until`; the `times`-th in a row after a 429."""

    until: float
    times: int


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Times in Unix seconds, durations in seconds. `breakers`, `cool_downs` and `windows` by target, `refusals` by scope, `tokens` by model (tokens.entry_of).

    A target is what has a breaker of its own: a provider, or one of its models. A scope is `key:FINGERPRINT` or
    `model:NAME@FINGERPRINT`: with another key, endpoint or name at the provider it is another, so that a change is tried at once.
    `drain_since`: when it was disabled in order to run empty; 0 where it was not.
    """

    disabled: bool = False
    drain_since: float = 0.0
    calls: int = 0
    failures: int = 0
    consecutive_failures: int = 0
    success_rate: float = 1.0
    latency_s: float = 0.0
    latest_s: float = 0.0
    per_token_s: float = 0.0
    answered_at: float = 0.0
    last_error: LastError | None = None
    breakers: dict[str, Circuit] = {}
    cool_downs: dict[str, CoolDown] = {}
    refusals: dict[str, Refusal] = {}
    windows: dict[str, Window] = {}
    tokens: dict[str, Learned] = {}


def key_scope(fingerprint: str) -> str:
    return f"key:{fingerprint}"


def model_scope(model: str, offer: str) -> str:
    return f"model:{model}@{offer}"


def model_of(scope: str) -> str | None:
    """The model that a scope is about; None where it is about a key."""
    kind, _, name = scope.partition(":")
    return name.rpartition("@")[0] if kind == "model" else None


def endpoint_of(scope: str) -> str | None:
    """The endpoint of our API at which a model is refused; None where the scope is about a key, or does not say."""
    _, slash, path = scope.rpartition("@")[2].partition("/")
    return slash + path if slash and model_of(scope) is not None else None


def answered(c: Condition, *, duration_s: float, at: float, output_tokens: int = 0) -> Condition:
    """`output_tokens`: 0 where the provider did not tell; the pace is of calls as a whole, prompt and queue included."""
    first = c.answered_at == 0.0
    pace_s = duration_s / output_tokens if output_tokens else 0.0
    per_token_s = _ema(c.per_token_s, pace_s) if c.per_token_s and pace_s else pace_s or c.per_token_s
    return msgspec.structs.replace(
        c,
        calls=c.calls + 1,
        consecutive_failures=0,
        success_rate=_ema(c.success_rate, 1.0),
        latency_s=duration_s if first else _ema(c.latency_s, duration_s),
        latest_s=duration_s,
        per_token_s=per_token_s,
        answered_at=max(c.answered_at, at),
    )


def taught(c: Condition, model: str, lesson: Lesson) -> Condition:
    """By an answer to this model; empty where its name was merely passed on."""
    name = entry_of(c.tokens, model)
    learned = c.tokens.get(name, NOTHING_LEARNED).after(lesson)
    return msgspec.structs.replace(c, tokens={**c.tokens, name: learned})


def failed(c: Condition, error: LastError) -> Condition:
    return msgspec.structs.replace(
        c,
        calls=c.calls + 1,
        failures=c.failures + 1,
        consecutive_failures=c.consecutive_failures + 1,
        success_rate=_ema(c.success_rate, 0.0),
        last_error=error,
    )


def _ema(before: float, value: float) -> float:
    return before + ALPHA * (value - before)


def refused(c: Condition, scope: str, error: LastError, probe_every_s: float) -> Condition:
    """Out of service for this scope; it has been since the first refusal."""
    c = _without_forgotten(c, error.at, probe_every_s)
    known = c.refusals.get(scope)
    refusal = Refusal(
        code=error.code,
        message=error.message,
        since=known.since if known else error.at,
        probe_at=error.at + probe_every_s,
    )
    return msgspec.structs.replace(c, refusals={**c.refusals, scope: refusal})


def probed(c: Condition, scope: str, now: float, lease_s: float) -> Condition:
    """One job tries it now. The next may when that one's lease ends, should it die; else in a whole period from its refusal."""
    refusal = msgspec.structs.replace(c.refusals[scope], probe_at=now + lease_s)
    return msgspec.structs.replace(c, refusals={**c.refusals, scope: refusal})


def reinstated(
    c: Condition, scopes: tuple[str, ...], *, began: float, now: float, probe_every_s: float
) -> Condition:
    """After a call that shows that these are served again. One that began before the refusal shows nothing."""
    if not c.refusals:
        return c
    kept = {name: r for name, r in c.refusals.items() if name not in scopes or r.since > began}
    return _without_forgotten(msgspec.structs.replace(c, refusals=kept), now, probe_every_s)


def _without_forgotten(c: Condition, now: float, probe_every_s: float) -> Condition:
    """Scopes that nobody has tried though he might: their key, endpoint or model is not in use any more."""
    kept = {scope: r for scope, r in c.refusals.items() if r.probe_at + probe_every_s > now}
    return c if len(kept) == len(c.refusals) else msgspec.structs.replace(c, refusals=kept)


def cooled(c: Condition, target: str, *, now: float, retry_after_s: float | None) -> Condition:
    """After a 429. Those that come while it cools down already are of the same haste, and do not prolong it by themselves."""
    known = c.cool_downs.get(target)
    fresh = known is None or known.until <= now
    times = (known.times if known else 0) + fresh
    if retry_after_s is not None:
        until = max(known.until if known else 0.0, now + retry_after_s)
    elif fresh:
        until = now + min(COOL_DOWN_S * 2.0 ** min(times - 1, 16), MAX_COOL_DOWN_S)
    else:
        until = known.until if known else now
    return msgspec.structs.replace(c, cool_downs={**c.cool_downs, target: CoolDown(until=until, times=times)})


def rested(c: Condition, target: str, until: float) -> Condition:
    """Its headers said that nothing is left until then: no 429, and it does not count as one."""
    known = c.cool_downs.get(target) or CoolDown(until=0.0, times=0)
    cool = CoolDown(until=max(known.until, until), times=known.times)
    return msgspec.structs.replace(c, cool_downs={**c.cool_downs, target: cool})


def warmed(c: Condition, target: str, now: float) -> Condition:
    """It answered: a cool-down that is over is forgotten."""
    known = c.cool_downs.get(target)
    if known is None or known.until > now:
        return c
    return msgspec.structs.replace(
        c, cool_downs={name: cool for name, cool in c.cool_downs.items() if name != target}
    )


# quantiles of a recent window: a sketch of DDSketch's form (Masson et al., VLDB 2019), mergeable by adding counts

ACCURACY = 0.02
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
_LEAST_S = 0.0005

SLOT_S = 60.0
SLOTS = 5
WINDOW_S = SLOT_S * SLOTS
"""What availability and quantiles look back on."""


def last_minute(previous: int, present: int, now: float) -> int:
    """About as many calls as ended in the last SLOT_S seconds: of the previous slot the share that these reach back into."""
    return round(present + previous * (1.0 - now % SLOT_S / SLOT_S))


def bucket_of(duration_s: float) -> int:
    """The bucket whose values lie within ACCURACY of each other."""
    return math.ceil(math.log(max(duration_s, _LEAST_S)) / _LOG_GAMMA)


def quantile(buckets: dict[int, int], q: float) -> float | None:
    """The q-quantile in seconds, within ACCURACY of a value that was seen; None where there is none."""
    total = sum(buckets.values())
    if not total:
        return None
    rank, seen = q * (total - 1), 0
    for index in sorted(buckets):
        seen += buckets[index]
        if seen > rank:
            return float(2 * _GAMMA**index / (_GAMMA + 1))
    raise AssertionError  # the last bucket reaches the total
