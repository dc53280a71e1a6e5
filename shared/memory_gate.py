"""The gate in memory: the model that `redis_gate` is checked against, and what a worker falls back on while Redis is away."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from shared import breaker, condition, window
from shared.breaker import Circuit, Ended, State
from shared.catalogue import Breaker
from shared.clock import Clock
from shared.condition import (
    MOST_REST_S,
    SLOT_S,
    SLOTS,
    WINDOW_S,
    Condition,
    LastError,
    key_scope,
    model_scope,
)
from shared.gate import (
    ON_THE_GROUND,
    WAKE_MOST,
    Action,
    Ask,
    Block,
    Candidate,
    Change,
    Exchanged,
    Flight,
    Report,
    Seen,
    Verdict,
)
from shared.limits import Kind, limits_calls
from shared.memory_limits import Counters
from shared.reasons import Reason

_NEW = Circuit()


class MemoryGate:
    """The contract: `shared.gate.Gate`. One thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._now: Callable[[], float] = clock.now
        self._conditions: dict[str, Condition] = {}
        self._slots: dict[tuple[str, int], dict[int, int]] = {}
        self._counts: dict[tuple[str, int], tuple[int, int]] = {}
        self._senders: dict[str, tuple[int, Exchanged]] = {}
        self._changes: list[Change] = []
        self._touched: set[str] = set()
        self.counters = Counters()
        self._adaptive = False
        self._back: Counter[str] = Counter()

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
        last = self._senders.get(sender)
        if last is not None and last[0] == serial:
            return last[1]
        now, self._changes, self._touched = self._now(), [], set()
        self.counters.begin(sender, flight.held, now=now, spread=spread)
        self._adaptive, self._back = flight.adaptive, Counter(r.candidate.target for r in reports)
        charged = tuple(self._learn(report, settings, now, spread) for report in reports)
        verdicts = tuple(self._judge(ask, settings, now) for ask in asks)
        self.counters.end(self._windowless())
        touched = tuple((name, self._conditions[name]) for name in sorted(self._touched))
        told = Exchanged(now, verdicts, charged, tuple(self._changes), touched)
        self._senders[sender] = (serial, told)
        return told

    def condition(self, provider: str) -> Condition:
        return self._conditions.get(provider) or Condition()

    # reports

    def _learn(self, report: Report, settings: Breaker, now: float, spread: float) -> bool:
        """Whether the call counts as one of its job's attempts."""
        candidate, at = report.candidate, now - report.age_s
        self.counters.settle(report.used, candidate.limits, report.limits)
        c = self.condition(candidate.provider)
        before = c.breakers.get(candidate.target, _NEW)
        charged = before.state is State.CLOSED and before.generation == report.generation
        if report.age_s > WINDOW_S:
            return charged
        ended = Ended(
            permit=report.permit,
            generation=report.generation,
            failed=_FAILED.get(report.result),
            reason=report.code,
        )
        after = breaker.settle(before, settings, ended, now=at, spread=spread)
        c = self._with(c, candidate.provider, candidate.target, before, after)
        c = self._adapted(self._health(c, report, settings, at, now), report, at)
        if report.rest_s is not None:
            c = condition.rested(c, candidate.target, at + report.rest_s)
        self._conditions[candidate.provider] = c
        self._touched.add(candidate.provider)
        return charged

    def _health(self, c: Condition, report: Report, settings: Breaker, at: float, now: float) -> Condition:
        candidate = report.candidate
        if report.result == "nothing":
            return c
        if report.result in _ANSWERED:
            self._count(report, at)
            c = condition.answered(c, duration_s=report.duration_s, at=at, output_tokens=report.output_tokens)
            if report.lesson is not None:
                c = condition.taught(c, candidate.model, report.lesson)
            c = condition.warmed(c, candidate.target, now)
            return _reinstated(c, report, settings, at, _scopes(candidate))
        if report.result == "model" and not candidate.model:  # only this job's name was not known there
            return c
        self._count(report, at)
        c = condition.failed(c, LastError(code=report.code, message=report.message, at=at))
        return self._refused(c, report, settings, at)

    def _refused(self, c: Condition, report: Report, settings: Breaker, at: float) -> Condition:
        """What keeps calls away after this one."""
        candidate = report.candidate
        wait_s = report.retry_after_s if report.retry_after_s >= 0 else None
        if report.result == "failed":
            return (
                c if wait_s is None else condition.rested(c, candidate.target, at + min(wait_s, MOST_REST_S))
            )
        if report.result != "key":  # the key was taken
            c = _reinstated(c, report, settings, at, (key_scope(candidate.key),))
        if report.result == "limited":
            bears = wait_s is None and self._bears(c, candidate, at)
            return c if bears else condition.cooled(c, candidate.target, now=at, retry_after_s=wait_s)
        scope, error = _scopes(candidate)[report.result == "model"], c.last_error
        return c if error is None else condition.refused(c, scope, error, settings.out_of_service_probe_s)

    def _count(self, report: Report, at: float) -> None:
        slot = (report.candidate.provider, int(at // SLOT_S))
        answered, failed = self._counts.get(slot, (0, 0))
        good = report.result in _ANSWERED
        self._counts[slot] = (answered + good, failed + (not good))
        if good:
            buckets = self._slots.setdefault(slot, {})
            buckets[report.bucket] = buckets.get(report.bucket, 0) + 1

    # asks

    def _judge(self, ask: Ask, settings: Breaker, now: float) -> Verdict:
        blocks = []
        for n, candidate in enumerate(ask.candidates):
            c = self.condition(candidate.provider)
            block = _kept_out(c, candidate, now)
            if block is not None:
                blocks.append(block)
                continue
            before = c.breakers.get(candidate.target, _NEW)
            after, admission = breaker.admit(before, settings, now=now, permit=ask.permit)
            c = self._with(c, candidate.provider, candidate.target, before, after)
            if after.state is State.HALF_OPEN:
                self._touched.add(candidate.provider)
            if not admission.granted:
                probing = after.state is State.HALF_OPEN
                reason = Reason.BREAKER_PROBING if probing else Reason.BREAKER_OPEN
                blocks.append(Block(candidate.provider, reason, admission.until, after.reason))
                self._conditions[candidate.provider] = c
                continue
            refusal = self.counters.refusal(candidate.limits, ask.limits)
            w = c.windows.get(candidate.target) if self._adapts(candidate) else None
            scope = window.scope_of(candidate.target)
            if refusal is None and window.is_full(w, self.counters.in_flight(scope)):
                refusal = Reason.LIMIT_REACHED, self.counters.busy_until, "concurrency", scope
            if refusal is not None:
                blocks.append(Block(candidate.provider, *refusal))
                self._conditions[candidate.provider] = self._unused(c, candidate, ask.permit)
                continue
            self.counters.take(candidate.limits, ask.limits)
            if w is not None:
                self.counters.take_call(scope)
            scopes = [scope for scope in _scopes(candidate) if scope in c.refusals]
            if scopes:
                self._touched.add(candidate.provider)
            for scope in scopes:
                c = condition.probed(
                    c, scope, now, min(settings.probe_lease_s, settings.out_of_service_probe_s)
                )
            self._conditions[candidate.provider] = c
            return Verdict(n, after.generation, admission.probe or bool(scopes), tuple(blocks))
        return Verdict(-1, blocks=tuple(blocks))

    # windows

    def _adapts(self, candidate: Candidate) -> bool:
        return self._adaptive and not limits_calls(candidate.limits)

    def _bears(self, c: Condition, candidate: Candidate, at: float) -> bool:
        w = c.windows.get(candidate.target)
        return self._adapts(candidate) and window.bears(
            w, at=at, answered_at=c.answered_at, latency_s=c.latency_s
        )

    def _adapted(self, c: Condition, report: Report, at: float) -> Condition:
        if not self._adapts(report.candidate):
            return c
        target, w = report.candidate.target, c.windows.get(report.candidate.target)
        scope = window.scope_of(target)
        in_flight = self.counters.in_flight(scope) + self._back[target]
        after = w
        if report.result == "limited" or (report.result == "failed" and report.code in window.TIMEOUTS):
            after = window.cut(w, at=at, in_flight=in_flight, latency_s=c.latency_s)
        elif w is not None and report.result in _ANSWERED:
            senders = self.counters.senders(scope)
            after = window.answered(w, at=at, in_flight=in_flight, senders=senders, latency_s=c.latency_s)
        kept = {name: known for name, known in c.windows.items() if name != target}
        return msgspec.structs.replace(c, windows=kept if after is None else {**kept, target: after})

    def _windowless(self) -> Callable[[str], bool]:
        """Calls are counted by target only where there is a window."""
        counted = {
            window.scope_of(target)
            for c in self._conditions.values()
            for target in c.windows
            if self._adaptive
        }
        return lambda scope: scope.startswith("w:") and scope not in counted

    @staticmethod
    def _unused(c: Condition, candidate: Candidate, permit: str) -> Condition:
        """The breaker let it, a limit did not: a probe is not spent on it."""
        circuit = c.breakers.get(candidate.target)
        if circuit is None or permit not in circuit.probes:
            return c
        probes = {name: until for name, until in circuit.probes.items() if name != permit}
        circuit = msgspec.structs.replace(circuit, probes=probes)
        return msgspec.structs.replace(c, breakers={**c.breakers, candidate.target: circuit})

    def _with(self, c: Condition, provider: str, target: str, before: Circuit, after: Circuit) -> Condition:
        if after is before:
            return c
        if after.state is not before.state:
            self._changes.append(
                Change(provider, target, before.state, after.state, after.until, after.reason)
            )
        breakers = {**c.breakers, target: after}
        if after == _NEW:  # there is nothing to remember
            del breakers[target]
        return msgspec.structs.replace(c, breakers=breakers)

    # people

    def change(
        self, provider: str, action: Action, *, settings: Breaker, target: str = "", most: int = WAKE_MOST
    ) -> list[Change]:
        del most  # nothing waits here
        now, self._changes = self._now(), []
        c = self.condition(provider)
        if action in {"enable", "disable", "drain"}:
            since = (c.drain_since or now) if action == "drain" else 0.0
            c = msgspec.structs.replace(c, disabled=action != "enable", drain_since=since)
        if action == "enable":
            c = msgspec.structs.replace(c, refusals={}, cool_downs={}, windows={})
        for name in [target] if target else list(c.breakers) or [provider]:
            before = c.breakers.get(name, _NEW)
            c = self._with(c, provider, name, before, _forced(before, action, settings, now))
        self._conditions[provider] = c
        return self._changes

    def look(self, providers: Sequence[str]) -> tuple[float, list[Seen]]:
        now = self._now()
        return now, [self._seen(provider, now) for provider in providers]

    def taken(self, counted: Sequence[tuple[Kind, str]]) -> tuple[float, list[float]]:
        now = self._now()
        return now, [self.counters.look(kind, scope, now) for kind, scope in counted]

    def conditions(self, providers: Sequence[str]) -> dict[str, Condition]:
        return {name: self._conditions[name] for name in providers if name in self._conditions}

    def _seen(self, provider: str, now: float) -> Seen:
        answered = failed = 0
        buckets: dict[int, int] = {}
        last = int(now // SLOT_S)
        for number in range(last - SLOTS + 1, last + 1):
            good, bad = self._counts.get((provider, number), (0, 0))
            answered, failed = answered + good, failed + bad
            for bucket, count in self._slots.get((provider, number), {}).items():
                buckets[bucket] = buckets.get(bucket, 0) + count
        previous, present = (sum(self._counts.get((provider, n), (0, 0))) for n in (last - 1, last))
        late = condition.last_minute(previous, present, now)
        return Seen(self.condition(provider), answered, failed, buckets, late)


_FAILED = {"answered": False, "slow": True, "failed": True}
_ANSWERED = frozenset({"answered", "slow"})


def _reinstated(
    c: Condition, report: Report, settings: Breaker, at: float, scopes: tuple[str, ...]
) -> Condition:
    return condition.reinstated(
        c, scopes, began=at - report.duration_s, now=at, probe_every_s=settings.out_of_service_probe_s
    )


def _scopes(candidate: Candidate) -> tuple[str, ...]:
    named = (model_scope(candidate.model, candidate.offer),) if candidate.model else ()
    return (key_scope(candidate.key), *named)


def _kept_out(c: Condition, candidate: Candidate, now: float) -> Block | None:
    """What stands before the breaker."""
    if c.disabled:
        return Block(candidate.provider, Reason.DISABLED, 0.0)
    for scope in _scopes(candidate):
        refusal = c.refusals.get(scope)
        if refusal is not None and now < refusal.probe_at:
            reason = Reason.KEY_REFUSED if scope == key_scope(candidate.key) else Reason.MODEL_REFUSED
            return Block(candidate.provider, reason, refusal.probe_at, refusal.code)
    cool = c.cool_downs.get(candidate.target)
    if cool is not None and now < cool.until:
        return Block(candidate.provider, Reason.RATE_LIMITED, cool.until)
    return None


def _forced(c: Circuit, action: Action, settings: Breaker, now: float) -> Circuit:
    if action == "open":
        return breaker.opened(c, settings, now=now, reason="opened by hand")
    if action == "close":
        return breaker.closed(c, now=now)
    if action == "half_open" or (action == "enable" and c.state is State.OPEN):
        return breaker.half_opened(c, now=now)
    return c
