"""What a worker knows of each provider at present: the conditions that the gate told last, and its own calls under way.

Conditions come with what a worker asks and reports, and all of them now and then (`look`): no call waits for a view.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from shared.breaker import Circuit, State
from shared.condition import Condition, key_scope, model_scope
from shared.errors import StoreUnavailableError
from shared.gate import Candidate
from shared.tokens import Learned, learned_of
from workers.strategies.records import View

_NEW, _CLOSED = Condition(), Circuit()


class Views:
    """For all threads of a worker."""

    def __init__(
        self, look: Callable[[Sequence[str]], Mapping[str, Condition]], now: Callable[[], float]
    ) -> None:
        """`now`: the store's time."""
        self._look = look
        self._now = now
        self._conditions: dict[str, Condition] = {}
        self._begun: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def heard(self, conditions: Mapping[str, Condition]) -> None:
        """As an exchange with the gate has left them."""
        self._conditions.update(conditions)

    def look(self, providers: Sequence[str]) -> None:
        """All of them anew: what other workers have learned of providers that this one does not ask."""
        try:
            self.heard(self._look(providers))
        except StoreUnavailableError:
            return  # they are as they were last known

    def began(self, permit: str, provider: str) -> None:
        with self._lock:
            self._begun.setdefault(provider, {})[permit] = time.monotonic()

    def ended(self, permit: str, provider: str) -> None:
        with self._lock:
            self._begun.get(provider, {}).pop(permit, None)

    def learned(self, provider: str, model: str) -> Learned:
        """`model`: as the providers file names it by itself, or empty."""
        return learned_of(self._conditions.get(provider, _NEW).tokens, model)

    def of(self, candidates: Iterable[Candidate], price: Callable[[str], Decimal | None]) -> dict[str, View]:
        """By provider. `price`: of the job at a provider."""
        now = self._now()
        return {c.provider: self._view(c, now, price(c.provider)) for c in candidates}

    def _view(self, candidate: Candidate, now: float, price: Decimal | None) -> View:
        begun = self._begun.get(candidate.provider)
        calls, oldest_s = 0, 0.0
        if begun:
            with self._lock:
                calls = len(begun)
                oldest_s = time.monotonic() - next(iter(begun.values())) if calls else 0.0
        known = self._conditions.get(candidate.provider, _NEW)
        return view_of(known, candidate, now=now, in_flight=calls, oldest_s=oldest_s, price=price)


def view_of(
    c: Condition,
    candidate: Candidate,
    *,
    now: float,
    in_flight: int = 0,
    oldest_s: float = 0.0,
    price: Decimal | None = None,
) -> View:
    """A provider's condition as a strategy sees it, for the jobs that would go there as this candidate."""
    circuit = c.breakers.get(candidate.target, _CLOSED)
    recovered = circuit.state is State.CLOSED and circuit.generation > 0
    return View(
        answers=c.calls - c.failures,
        latency_s=c.latency_s,
        latest_s=c.latest_s,
        per_token_s=c.per_token_s,
        success_rate=c.success_rate,
        in_flight=in_flight,
        oldest_s=oldest_s,
        serving=_serves(c, circuit, candidate, now),
        recovered_at=circuit.since if recovered else 0.0,
        price=price,
    )


def _serves(c: Condition, circuit: Circuit, candidate: Candidate, now: float) -> bool:
    """False only while the gate certainly lets no call through: who is due for a probe must be asked, or it would never come back."""
    if c.disabled or (circuit.state is State.OPEN and now < circuit.until):
        return False
    cooling = c.cool_downs.get(candidate.target)
    if cooling is not None and now < cooling.until:
        return False
    if not c.refusals:
        return True
    scopes = [key_scope(candidate.key)]
    if candidate.model:
        scopes.append(model_scope(candidate.model, candidate.offer))
    refused = (c.refusals[scope] for scope in scopes if scope in c.refusals)
    return all(now >= refusal.probe_at for refusal in refused)
