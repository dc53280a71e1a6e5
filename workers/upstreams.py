"""The providers as one worker calls them: under a permit, through the shared breaker, with the key of the moment."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import pybreaker

from shared.catalogue import Catalogue, Provider
from shared.errors import StoreUnavailableError
from shared.gate import Block, Candidate, Change, Gate, candidate_of
from shared.logs import get_logger
from shared.permits import UNUSED, Doorman, Permit
from shared.prices import cost_of
from shared.shared_breaker import SharedBreaker, Told
from workers.transport import Answer, Transport
from workers.usage import counted, limits_of, used_by

_log = get_logger(__name__)


class _Told(pybreaker.CircuitBreakerListener):
    """One line for each change of a breaker, from the process that brought it about."""

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: object, new_state: object) -> None:
        before, after = (getattr(state, "name", None) for state in (old_state, new_state))
        say = _log.info if after == pybreaker.STATE_CLOSED else _log.warning
        say("breaker", target=cb.name, before=before, after=after)


class Upstreams:
    """For all callers of a worker."""

    def __init__(
        self, catalogue: Callable[[], Catalogue], transport: Transport, gate: Gate, doorman: Doorman
    ) -> None:
        self._catalogue = catalogue
        self._transport = transport
        self._gate = gate
        self._doorman = doorman
        self._breakers: dict[str, SharedBreaker] = {}
        self._keys: dict[str, str] = {}

    def candidate(self, provider: Provider, model: str, tokens: int = 0) -> Candidate:
        """`tokens`: about as many as the call will take."""
        key = self._transport.fingerprint(provider)
        return candidate_of(provider, model, key, self._catalogue().breaker, limits_of(provider, tokens))

    def acquire(self, candidates: Sequence[Candidate]) -> Permit | tuple[Block, ...]:
        """Leave for the first that may be called, or why none may."""
        return self._doorman.acquire(candidates)

    def release(self, permit: Permit) -> None:
        """The permit is not used."""
        self._doorman.settle(permit, UNUSED)

    def call(self, permit: Permit, provider: Provider, endpoint: str, body: bytes) -> Answer:
        """One attempt. Raises a ProviderError of the kind that tells what to do next, and whether it is charged."""

        def told(answer: Answer) -> Told:
            def cost() -> Decimal | None:
                asked = permit.candidate.model or answer.model
                return cost_of(provider, asked, counted(answer.usage)) if answer.usage.known else None

            return Told(used_by(permit, answer.usage, cost), answer.rest_s)

        return self._breaker(permit.candidate).run(
            permit, lambda: self._transport.call(provider, endpoint, body), told
        )

    def _breaker(self, candidate: Candidate) -> SharedBreaker:
        found = self._breakers.get(candidate.target)
        if found is None:
            found = self._breakers[candidate.target] = SharedBreaker(
                self._gate,
                self._doorman,
                candidate,
                self._catalogue().breaker,
                listeners=[_Told()],
                throw_new_error_on_trip=False,
            )
        return found

    def heard(self, changes: Sequence[Change]) -> None:
        """Breakers have changed by what this process asked or reported."""
        for change in changes:
            self._breaker(Candidate(change.provider, change.target, "", "")).on_change(change)

    def look_for_mended(self) -> None:
        """What waits for a provider whose key is another one now comes back at once; so does all when a worker starts."""
        for provider in self._catalogue().providers:
            key = self._transport.fingerprint(provider)
            if self._keys.get(provider.id) != key:
                try:
                    self._gate.change(provider.id, "wake", settings=self._catalogue().breaker)
                except StoreUnavailableError:
                    return
                self._keys[provider.id] = key
