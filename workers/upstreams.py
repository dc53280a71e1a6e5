"""The providers as one worker calls them: under a permit, through the shared breaker, with the key of the moment."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal

import msgspec
import pybreaker

from shared.catalogue import Catalogue, Provider
from shared.errors import StoreUnavailableError
from shared.gate import NOBODY, Block, Candidate, Change, Gate, candidate_of
from shared.limits import Limits
from shared.logs import get_logger
from shared.permits import UNUSED, Doorman, Permit
from shared.prices import cost_of
from shared.reasons import Reason
from shared.shared_breaker import SharedBreaker, Told
from shared.tokens import Learned
from workers.options import Price
from workers.strategies.records import View
from workers.transport import Answer, Transport
from workers.usage import counted, lesson_of, limits_of, used_by
from workers.views import Views

_log = get_logger(__name__)


class _Told(pybreaker.CircuitBreakerListener):
    """One line for each change of a breaker, from the process that brought it about."""

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: object, new_state: object) -> None:
        before, after = (getattr(state, "name", None) for state in (old_state, new_state))
        say = _log.info if after == pybreaker.STATE_CLOSED else _log.warning
        say("breaker", target=cb.name, before=before, after=after)


class _Served:
    """The providers that a catalogue lets be called, by id."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.ids = frozenset(provider.id for provider in catalogue.providers if provider.enabled)


class Upstreams:
    """For all callers of a worker."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        transport: Transport,
        gate: Gate,
        doorman: Doorman,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now`: the store's time."""
        self._catalogue = catalogue
        self._transport = transport
        self._gate = gate
        self._doorman = doorman
        self.now = now
        self.views = Views(gate.conditions, now)
        self._breakers: dict[str, SharedBreaker] = {}
        self._keys: dict[str, str] = {}
        self._known: Catalogue | None = None
        self._served = _Served(catalogue())

    def candidate(
        self, provider: Provider, model: str, endpoint: str, tokens: int = 0, money: Limits = ()
    ) -> Candidate:
        """`tokens`: about as many as the call will take; `money`: what is to be reserved for it."""
        key, settings = self._transport.fingerprint(provider), self._catalogue().breaker
        limits = (*(limits_of(provider, model, tokens) or ()), *money) or None
        return candidate_of(provider, model, endpoint, key, settings, limits)

    def learned(self, provider: Provider, model: str) -> Learned:
        """What the fleet has learned of the model's answers there."""
        return self.views.learned(provider.id, model if model in provider.models else "")

    def seen(self, candidates: Iterable[Candidate], price: Price) -> Mapping[str, View]:
        """As the strategies see them, by provider."""
        return self.views.of(candidates, price)

    def acquire(self, candidates: Sequence[Candidate]) -> Permit | tuple[Block, ...]:
        """Leave for the first that may be called, or why none may.

        An attempt may have begun under an earlier providers file: nothing new is called that is not in the present one.
        """
        while True:
            ids = self._enabled()
            left = [n for n, candidate in enumerate(candidates) if candidate.provider in ids]
            gone = [Block(c.provider, Reason.DISABLED, 0.0) for c in candidates if c.provider not in ids]
            found = self._doorman.acquire([candidates[n] for n in left]) if left else ()
            if not isinstance(found, Permit):
                return (*gone, *found)
            if found.candidate.provider in self._enabled():
                return msgspec.structs.replace(found, choice=left[found.choice])
            self.release(found)  # it has left the file while we waited at a limit

    def _enabled(self) -> frozenset[str]:
        catalogue = self._catalogue()
        if self._served.catalogue is not catalogue:
            self._served = _Served(catalogue)
        return self._served.ids

    def release(self, permit: Permit) -> None:
        """The permit is not used."""
        self._doorman.settle(permit, UNUSED)

    def call(self, permit: Permit, provider: Provider, model: str, endpoint: str, body: bytes) -> Answer:
        """One attempt, asking for this `model`. Raises a ProviderError of the kind that tells what to do next, and whether it is charged."""

        def told(answer: Answer) -> Told:
            def cost() -> Decimal | None:
                return cost_of(provider, model, counted(answer.usage)) if answer.usage.known else None

            said = answer.usage.completion_tokens if answer.usage.known else 0
            lesson = lesson_of(
                permit, body, answer.usage, self.views.learned(provider.id, permit.candidate.model)
            )
            return Told(used_by(permit, answer.usage, cost), answer.rest_s, said, lesson)

        self.views.began(permit.id, provider.id)
        try:
            return self._breaker(permit.candidate).run(
                permit, lambda: self._transport.call(provider, endpoint, body), told
            )
        finally:
            self.views.ended(permit.id, provider.id)

    def _breaker(self, candidate: Candidate) -> SharedBreaker:
        found, settings = self._breakers.get(candidate.target), self._catalogue().breaker
        if found is None or found.settings is not settings:
            found = self._breakers[candidate.target] = SharedBreaker(
                self._gate,
                self._doorman,
                candidate,
                settings,
                listeners=[_Told()],
                throw_new_error_on_trip=False,
            )
        return found

    def heard(self, changes: Sequence[Change]) -> None:
        """Breakers have changed by what this process asked or reported."""
        for change in changes:
            self._breaker(Candidate(change.provider, change.target, "", "")).on_change(change)

    def bring_forward(self, early: Mapping[str, int]) -> None:
        """So many shards of those that wait for a provider come before their time."""
        with suppress(StoreUnavailableError):
            for name, most in early.items():
                self._gate.change(name, "wake", settings=self._catalogue().breaker, most=most)

    def look_for_mended(self) -> None:
        """What waits for a provider whose key is another one now comes back at once.

        So does all that waits where the providers file is another one, and when a worker starts. Beside that, what others
        have learned of the providers is looked at.
        """
        catalogue = self._catalogue()
        keys = {provider.id: self._transport.fingerprint(provider) for provider in catalogue.providers}
        mended = {name for name, key in keys.items() if self._keys.get(name) != key}
        if catalogue is not self._known:
            mended = {NOBODY, *self._keys, *keys}
        try:
            for name in sorted(mended):
                self._gate.change(name, "wake", settings=catalogue.breaker)
        except StoreUnavailableError:
            return
        self._known, self._keys = catalogue, keys
        self.views.look(list(keys))
