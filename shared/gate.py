"""The gate before every call: may it begin, and at which provider? And what is learned from how it ended.

`Gate.exchange` does both for many calls at once: reports first, then asks, so that no ask is answered from what is already
known to be old. Two implementations: `redis_gate` for the fleet, `memory_gate` for tests and for a worker whose Redis is
away for a moment; one suite runs on both.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

import msgspec

from shared.breaker import State
from shared.catalogue import Breaker, Provider
from shared.condition import Condition
from shared.errors import KeyRefusedError, ModelRefusedError, ProviderError, RateLimitedError
from shared.limits import Kind, Limits
from shared.reasons import Reason
from shared.tokens import Lesson

Result = Literal["answered", "slow", "failed", "limited", "key", "model", "nothing"]
"""What a call says of its provider; `slow`: it answered, but to the breaker that is a failure; `nothing` where it was
cancelled, or the request itself was refused."""

Action = Literal["enable", "disable", "drain", "open", "close", "half_open", "wake"]

WAKE_MOST = 10_000

NOBODY = ""
"""In a provider's place: what jobs wait for whose model no provider serves. It is woken when the providers file changes."""


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A provider that could serve a job. `model` is empty where its name was merely passed on by `"*"`.

    `key` and `offer` are fingerprints: of the provider's endpoint and key, and of these with its own name for the model and
    the API's endpoint that is asked for, which stands behind it: a chat model may be there for one of ours, and not for the other.
    `limits` are what this call takes there: of the provider's own, and of the purses it is paid from (`shared.spending`), since
    what it can cost at most differs from provider to provider.
    """

    provider: str
    target: str
    key: str
    model: str
    offer: str = ""
    limits: Limits | None = None


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Leave for one call at the first of `candidates` that may be called. `permit` names the call.

    `limits` hold whichever is chosen, alike: where the amount depends on the provider, as money does, they are the candidate's.
    """

    permit: str
    candidates: tuple[Candidate, ...]
    limits: Limits | None = None


class Report(msgspec.Struct, frozen=True, array_like=True):
    """How a call ended, `age_s` seconds before this is sent. `retry_after_s` is negative where nothing was asked for.

    `limits` are its ask's. `used`, by kind of limit: what it took in truth; what is not told stays as it was estimated.
    `rest_s`: for how long the provider's headers said that its rate limit leaves nothing. `lesson`: where it was measured.
    """

    permit: str
    candidate: Candidate
    generation: int
    result: Result
    code: str = ""
    message: str = ""
    duration_s: float = 0.0
    bucket: int = 0
    retry_after_s: float = -1.0
    age_s: float = 0.0
    limits: Limits | None = None
    used: dict[str, float] | None = None
    rest_s: float | None = None
    output_tokens: int = 0
    lesson: Lesson | None = None


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Why one provider may not be called; `until` is when that changes by itself at the latest, 0 where it does not.

    `detail`: the error's code, or of which kind the limit is that is reached, and `scope` where that one is counted.
    """

    provider: str
    reason: Reason
    until: float
    detail: str = ""
    scope: str = ""


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """`choice` is the candidate's index, or -1. `probe`: the provider's breaker is half-open, or it was out of service."""

    choice: int
    generation: int = 0
    probe: bool = False
    blocks: tuple[Block, ...] = ()


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A breaker has changed its state."""

    provider: str
    target: str
    before: State
    after: State
    until: float
    reason: str


class Exchanged(msgspec.Struct, frozen=True, array_like=True):
    """`charged`, for each report: False where the call was a probe, or under way when the breaker opened. `now`: the store's time.

    `conditions`: of the providers of which the exchange has changed something, by id.
    """

    now: float
    verdicts: tuple[Verdict, ...]
    charged: tuple[bool, ...]
    changes: tuple[Change, ...]
    conditions: tuple[tuple[str, Condition], ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """A provider's condition, and its calls of the last WINDOW_S seconds: how they ended, and the sketch of their durations.

    `last_minute`: about as many ended in the last minute.
    """

    condition: Condition
    answered: int
    failed: int
    buckets: dict[int, int]
    last_minute: int = 0


class Flight(msgspec.Struct, frozen=True):
    """What a sender has in flight: `held` calls by scope of a limit for their number, and what is not there is none.

    `adaptive`: where there is no such limit, the gate finds out how many a provider bears (shared/window.py).
    """

    held: dict[str, int] = {}
    adaptive: bool = False


ON_THE_GROUND = Flight()


class Gate(Protocol):
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
        """Take in `reports`, then answer `asks`, in order. Repeated with the `sender`'s last `serial` it gives the same answer again.

        `spread` in [0, 1) lengthens breaks that begin now. Raises StoreUnavailableError.
        """
        ...

    def change(
        self, provider: str, action: Action, *, settings: Breaker, target: str = "", most: int = WAKE_MOST
    ) -> list[Change]:
        """By a person's hand. `enable` also forgets what kept it out of service, and lets open breakers probe at once.

        Without `target` all breakers of the provider are meant. `drain` disables, and marks since when it is to run empty.
        `wake` only brings back what waits for it: at most so many shards, those first that were due first.
        """
        ...

    def look(self, providers: Sequence[str]) -> tuple[float, list[Seen]]:
        """The store's time, and the providers as they are."""
        ...

    def taken(self, counted: Sequence[tuple[Kind, str]]) -> tuple[float, list[float]]:
        """The store's time, and of each counter, by kind and scope of its limit, how it stands.

        Of concurrency: the calls in flight of all senders that are heard of. Of rates: when the bucket is full again, in
        Unix seconds (shared/limits.py). Of money: what is reserved and spent. 0 where nothing was taken.
        """
        ...

    def conditions(self, providers: Sequence[str]) -> dict[str, Condition]:
        """Of those that something is known of."""
        ...


def candidate_of(
    provider: Provider, model: str, endpoint: str, key: str, settings: Breaker, limits: Limits | None = None
) -> Candidate:
    """`model` is the name asked for, `endpoint` ours (`/v1/completions`), `key` the fingerprint of the provider's and its key."""
    named = model if model in provider.models else ""
    target = f"{provider.id}|{named or '*'}" if settings.per_model else provider.id
    offer = _offer(key, provider.models[named], endpoint) if named else ""
    return Candidate(provider.id, target, key, named, offer, limits)


def fingerprint(*parts: str) -> str:
    """Tells them apart without telling them."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def is_target(target: str, provider: Provider, settings: Breaker) -> bool:
    """Whether this is one of the provider's under the present file; what others left behind nobody asks about any more."""
    _, bar, model = target.partition("|")
    return bool(bar) == settings.per_model and (not bar or model in {"*", *provider.models})


@lru_cache(maxsize=4096)
def _offer(key: str, name: str, endpoint: str) -> str:
    """The endpoint of the API stands behind the fingerprint, so that people can be told (`condition.endpoint_of`)."""
    return fingerprint(key, name, endpoint) + endpoint


def result_of(error: ProviderError | None, duration_s: float, settings: Breaker) -> Result:
    """What counts: timeouts, connection errors, 5xx, 529, and answers slower than `slow_call_s`."""
    if error is None:
        slow = settings.slow_call_s is not None and duration_s > settings.slow_call_s
        return "slow" if slow else "answered"
    if error.counts_against_breaker:
        return "failed"
    if isinstance(error, RateLimitedError):
        return "limited"
    if isinstance(error, KeyRefusedError):
        return "key"
    return "model" if isinstance(error, ModelRefusedError) else "nothing"
