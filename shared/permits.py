"""Permits: leave to make one call, got before it and given back with what the call has shown."""

import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from shared.catalogue import Breaker
from shared.condition import bucket_of
from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    ProviderError,
    ProviderTimeoutError,
    RequestRefusedError,
)
from shared.gate import Ask, Block, Candidate, Change, Gate, Report, Result, Verdict, result_of
from shared.limits import COUNTED, Limits, limits_calls
from shared.tokens import Lesson
from shared.window import scope_of


class Permit(msgspec.Struct, frozen=True):
    """Leave to call `candidate`, the `choice`-th of those asked for. `probe`: it tries whether the provider serves again.

    `limits`: those of its ask.
    """

    id: str
    choice: int
    candidate: Candidate
    generation: int
    probe: bool = False
    limits: Limits | None = None

    @property
    def limited(self) -> bool:
        return bool(self.candidate.limits or self.limits)

    @property
    def scopes(self) -> list[str]:
        """Where it counts as a call in flight."""
        both = (*(self.candidate.limits or ()), *(self.limits or ()))
        found = [limit.scope for limit in both if limit.kind in COUNTED]
        return found if limits_calls(self.candidate.limits) else [*found, scope_of(self.candidate.target)]


class Ending(msgspec.Struct, frozen=True):
    """What a call has shown of its provider. `used`: what it took of the limits, by their kind, as far as that is known."""

    result: Result
    duration_s: float
    code: str = ""
    message: str = ""
    retry_after_s: float | None = None
    used: dict[str, float] | None = None
    rest_s: float | None = None
    output_tokens: int = 0
    lesson: Lesson | None = None


UNUSED = Ending("nothing", 0.0, used={"rpm": 0.0, "tpm": 0.0, "money": 0.0})
"""A permit under which no call was made."""

_NOT_ANSWERED = {"tpm": 0.0, "money": 0.0}


class Doorman(Protocol):
    """Gives permits and takes them back. For all threads of a process."""

    def acquire(
        self, candidates: Sequence[Candidate], limits: Limits | None = None
    ) -> Permit | tuple[Block, ...]:
        """Leave for the first of `candidates` that may be called, or why each of them may not. `limits` hold for whichever it is."""
        ...

    def settle(self, permit: Permit, ending: Ending) -> bool:
        """Whether a failed call is charged to its job: not one that was a probe, or under way when the breaker opened."""
        ...


def ending_of(
    exc: BaseException | None,
    duration_s: float,
    settings: Breaker,
    *,
    counts: bool = True,
) -> Ending:
    """What a call that raised `exc`, or nothing, has shown. `counts` is whether other errors than ours speak against the provider."""
    if exc is None or isinstance(exc, ProviderError):
        result = result_of(exc, duration_s, settings)
        if exc is None:
            return Ending(result, duration_s, code="" if result == "answered" else "slow_call")
        unused = _NOT_ANSWERED if _used_nothing(exc) else None
        brief = exc.brief[:_MESSAGE_CHARS]
        return Ending(result, duration_s, exc.code or "", brief, exc.retry_after_s, unused, exc.rest_s)
    failed = counts and isinstance(exc, Exception)
    return Ending("failed" if failed else "nothing", duration_s, code=type(exc).__name__)


_MAY_WORK_ON = frozenset({408, 499, 502, 504, *range(520, 528), 598, 599})
"""Answers of something that stands before a provider and has given up on it, or of one that took us for gone."""


def _used_nothing(exc: ProviderError) -> bool:
    """Whether it is certain that no tokens were made: it was refused, answered with an error of the provider's own, or not sent at all."""
    if exc.http_status in _MAY_WORK_ON or isinstance(exc, ProviderTimeoutError):
        return False
    refused = isinstance(exc, KeyRefusedError | ModelRefusedError | RequestRefusedError)
    return refused or exc.http_status is not None


def report_of(permit: Permit, ending: Ending) -> Report:
    return Report(
        permit=permit.id,
        candidate=permit.candidate,
        generation=permit.generation,
        result=ending.result,
        code=ending.code,
        message=ending.message,
        duration_s=ending.duration_s,
        bucket=bucket_of(ending.duration_s),
        retry_after_s=-1.0 if ending.retry_after_s is None else ending.retry_after_s,
        limits=permit.limits,
        used=_used(permit, ending.used) if permit.limited else None,
        rest_s=ending.rest_s,
        output_tokens=ending.output_tokens,
        lesson=ending.lesson,
    )


def _used(permit: Permit, used: dict[str, float] | None) -> dict[str, float] | None:
    """A request for which nothing was reserved, since it began while the store was away, is told as well."""
    both = (*(permit.candidate.limits or ()), *(permit.limits or ()))
    unreserved = any(limit.kind == "rpm" and not limit.amount for limit in both)
    return {"rpm": 1.0, **(used or {})} if unreserved else used


def permit_of(ask: Ask, verdict: Verdict) -> Permit | tuple[Block, ...]:
    if verdict.choice < 0:
        return verdict.blocks
    chosen = ask.candidates[verdict.choice]
    return Permit(ask.permit, verdict.choice, chosen, verdict.generation, verdict.probe, ask.limits)


_MESSAGE_CHARS = 300


class DirectDoorman:
    """The plainest: one exchange with the gate for each permit, one for each end. `heard` is told of breakers that changed.

    It keeps no count of what it has in flight, so under a limit of concurrency each permit counts for `limits.SILENT_S`.
    """

    def __init__(
        self, gate: Gate, settings: Breaker, heard: Callable[[Sequence[Change]], None] = lambda _: None
    ) -> None:
        self._gate = gate
        self._settings = settings
        self._heard = heard
        self._name = secrets.token_hex(8)
        self._serials = itertools.count(1)

    def acquire(
        self, candidates: Sequence[Candidate], limits: Limits | None = None
    ) -> Permit | tuple[Block, ...]:
        """Raises StoreUnavailableError."""
        serial = next(self._serials)
        ask = Ask(f"{self._name}:{serial}", tuple(candidates), limits)
        return permit_of(ask, self._exchange([ask], [], serial)[0][0])

    def settle(self, permit: Permit, ending: Ending) -> bool:
        """Raises StoreUnavailableError."""
        return self._exchange([], [report_of(permit, ending)], next(self._serials))[1][0]

    def _exchange(
        self, asks: Sequence[Ask], reports: Sequence[Report], serial: int
    ) -> tuple[tuple[Verdict, ...], tuple[bool, ...]]:
        told = self._gate.exchange(
            asks,
            reports,
            settings=self._settings,
            sender=f"{self._name}:{serial}",
            serial=serial,
            spread=secrets.randbelow(1000) / 1000,
        )
        if told.changes:
            self._heard(told.changes)
        return told.verdicts, told.charged
