"""What a batch will take, before it is handed in: tokens, cost and time, from its lines, the providers file and what is learned. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from api.cli.experience import NO_EXPERIENCE, Experience
from shared.catalogue import Catalogue, Ceilings, Provider
from shared.fitness import Unfit, Wanted, unfit, wanted
from shared.jobs import Fault, Usage
from shared.lines import Request, checked_lines, read_request
from shared.offer import AnyOffer, CatalogueOffer
from shared.prices import tariff_of
from shared.routing_asked import NOTHING_ASKED
from shared.tokens import Expected, Learned, Measured, expect, measure, together

MOST = 10**9
"""Far more than any provider gives; JSON has numbers of any length."""

Members = frozenset[str]
"""The ids of the providers that can take a request."""


@dataclass
class Load:
    """Requests and their tokens. The answers to `unbounded` of them are bounded by nothing: `most_output_tokens` is of the others.

    How long the answers to `guessed` of them will be is a guess: nothing is learned of their model yet.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    most_output_tokens: int = 0
    unbounded: int = 0
    guessed: int = 0

    def add(self, call: Expected, *, guessed: bool) -> None:
        self.requests += 1
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        self.most_output_tokens += call.most_output_tokens or 0
        self.unbounded += call.most_output_tokens is None
        self.guessed += guessed

    def plus(self, other: "Load") -> "Load":
        return Load(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.most_output_tokens + other.most_output_tokens,
            self.unbounded + other.unbounded,
            self.guessed + other.guessed,
        )


@dataclass
class Share:
    """All that one provider can serve, were it the only one to do it.

    Dollars are of what has a price, which is nothing like the whole where `unpriced` names models; `listed` names the list prices.
    """

    provider: Provider
    load: Load = field(default_factory=Load)
    parts: dict[Members, dict[str, Load]] = field(default_factory=dict)
    """The same by who else can serve it, and by the model it would be asked for."""
    usd: Decimal = Decimal(0)
    most_usd: Decimal = Decimal(0)
    unpriced: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    @property
    def cost(self) -> Decimal | None:
        return None if self.unpriced else self.usd

    @property
    def most_cost(self) -> Decimal | None:
        """With every answer as long as it may be; None where nothing bounds one."""
        return None if self.unpriced or self.load.unbounded else self.most_usd

    @property
    def time_s(self) -> float | None:
        return self.time_for_s()

    def time_for_s(self, group: Members | None = None) -> float | None:
        """Of what nobody outside the group can serve; of everything without one."""
        loads: dict[str, Load] = {}
        for members, by_model in self.parts.items():
            if group is None or group.issuperset(members):
                for model, load in by_model.items():
                    loads[model] = loads.get(model, Load()).plus(load)
        return alone_s(self.provider, loads)

    def add(self, model: str, members: Members, call: Expected, *, guessed: bool) -> None:
        self.load.add(call, guessed=guessed)
        self.parts.setdefault(members, {}).setdefault(model, Load()).add(call, guessed=guessed)
        tariff = tariff_of(self.provider, model)
        if tariff is None:
            self.unpriced.add(model)
            return
        if tariff.listed:
            self.listed.add(tariff.listed)
        most = call.output_tokens if call.most_output_tokens is None else call.most_output_tokens
        expected = Usage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
        self.usd += tariff.cost(expected)
        self.most_usd += tariff.cost(Usage(input_tokens=call.input_tokens, output_tokens=most))


class Estimate:
    """A reading of a batch's input."""

    def __init__(self, catalogue: Catalogue, experience: Experience = NO_EXPERIENCE) -> None:
        self.experience = experience
        self.faults: list[Fault] = []
        self.loads: dict[str, Load] = {}
        """By the model asked for."""
        self.nobodys = 0
        """Requests that no provider can take: they are in `loads`, and in no share."""
        self.refused: Counter[tuple[str, Unfit]] = Counter()
        """Why they cannot, by the ids of the providers that serve their models."""
        self._shares = {each.id: Share(each) for each in catalogue.providers if each.enabled}
        self._learned: dict[str, dict[str, Learned]] = {}
        self.learned: dict[str, Learned] = {}
        """By the model asked for, of all providers that serve it together."""

    def add(self, model: str, asked: Measured, wants: Wanted, others: Iterable[str] = ()) -> None:
        """`others`: the models that the request names beside its own, for where that is not to be had.

        A provider takes what its own answers have taught; where it has none, what the others' have. Its `max_tokens` bound
        every answer there, and the largest of such bounds the answer wherever it is given.
        """
        if model not in self._learned:
            self._learn(model)
        whole = self.learned[model]
        names = (model, *others)
        fit = [
            (s, name) for s in self._shares.values() if (name := _as(s.provider, names, wants)) is not None
        ]
        members = frozenset(share.provider.id for share, _ in fit)
        bounds = [_bounded(asked, share.provider) for share, _ in fit]
        for (share, name), bounded in zip(fit, bounds, strict=True):
            own = self._learned_of(share.provider, name)
            share.add(name, members, expect(bounded, own), guessed=not own.calls)
        widest = max(bounds, key=_most, default=asked)
        self.loads.setdefault(model, Load()).add(expect(widest, whole), guessed=not whole.calls)
        if not fit:
            self._nobody(names, wants)

    def _nobody(self, names: tuple[str, ...], wants: Wanted) -> None:
        self.nobodys += 1
        providers = [share.provider for share in self._shares.values()]
        serving = [(p, name) for p in providers for name in names if p.model_for(name) is not None]
        self.refused.update({(p.id, why) for p, name in serving if (why := unfit(p, name, wants))})

    def _learned_of(self, provider: Provider, model: str) -> Learned:
        if model not in self._learned:
            self._learn(model)
        return self._learned[model].get(provider.id, self.learned[model])

    def _learn(self, model: str) -> None:
        serving = [s.provider for s in self._shares.values() if s.provider.model_for(model) is not None]
        known = {provider.id: self.experience.of(provider, model) for provider in serving}
        self.learned[model] = together(known.values())
        self._learned[model] = {name: own for name, own in known.items() if own.calls}

    @property
    def whole(self) -> Load:
        return _sum(self.loads.values())

    @property
    def shares(self) -> list[Share]:
        """Of the providers that can serve some of it, in the file's order."""
        return [share for share in self._shares.values() if share.load.requests]

    @property
    def without_limits(self) -> list[str]:
        """Providers whose speed nothing tells."""
        return [share.provider.id for share in self.shares if share.time_s is None]

    @property
    def time_s(self) -> float | None:
        """All providers at their limits, each with as much as it can do; None where the speed of one is not known.

        What only some can serve takes these so long at least: the longest of such parts and of the whole.
        """
        if not self.shares or self.without_limits:
            return None
        groups = {frozenset(share.provider.id for share in self.shares)}
        groups.update(members for share in self.shares for members in share.parts)
        return max(map(self._together_s, groups))

    def _together_s(self, group: Members) -> float:
        """Of what nobody outside the group can serve: `1 / sum(1 / time alone)`."""
        times = [self._shares[member].time_for_s(group) for member in group]
        pace = sum(1 / alone for alone in times if alone)
        return 1 / pace if pace else 0.0


def _as(provider: Provider, names: Iterable[str], wants: Wanted) -> str | None:
    """The first of the models that the provider can be asked for with such a request."""
    return next((name for name in names if unfit(provider, name, wants) is None), None)


def _bounded(asked: Measured, provider: Provider) -> Measured:
    """With answers no longer than the provider gives; what asks for more is not sent there."""
    if asked.max_tokens is not None or provider.max_tokens is None:
        return asked
    return msgspec.structs.replace(asked, max_tokens=provider.max_tokens)


def _most(asked: Measured) -> float:
    return math.inf if asked.max_tokens is None else asked.max_tokens


def estimate(
    chunks: Iterable[bytes],
    endpoint: str,
    catalogue: Catalogue,
    *,
    max_jobs: int,
    model: str | None = None,
    experience: Experience = NO_EXPERIENCE,
) -> Estimate:
    """Reads the file to its end, holding no more than a line. `model`: as if every line asked for that one."""
    found = Estimate(catalogue, experience)
    offer = CatalogueOffer(catalogue) if model is None else AnyOffer()
    for place, result in checked_lines(chunks, endpoint, offer, max_jobs):
        if isinstance(result, Fault):
            found.faults.append(result)
        elif place.data is not None:
            _add(found, read_request(place.data), model)
    return found


def _add(found: Estimate, request: Request, model: str | None) -> None:
    asked = _measured(request.body)
    routing = request.routing or NOTHING_ASKED
    wants = wanted(request.body, asked, routing.providers)
    found.add(model or request.model, asked, wants, () if model else routing.models or ())


def _measured(body: bytes) -> Measured:
    """No more answers and tokens of each than MOST, so that every sum has a float."""
    found = measure(body)
    most = None if found.max_tokens is None else min(found.max_tokens, MOST)
    return msgspec.structs.replace(found, answers=min(found.answers, MOST), max_tokens=most)


def alone_s(provider: Provider, loads: Mapping[str, Load]) -> float | None:
    """The longest that its own limits and those of each model take, in seconds; None where the speed of some of it is not known."""
    limits, limited = provider.limits, {model: provider.limited_as(model) for model in loads}
    whole = time_s(limits, _sum(loads.values()))
    times = [] if whole is None else [whole]
    for name in set(limited.values()):
        same = _sum(load for model, load in loads.items() if limited[model] == name)
        own = None if name is None else time_s(limits.models[name], same)
        if own is not None:
            times.append(own)
        elif whole is None:
            return None
    return max(times, default=None)


def time_s(limits: Ceilings, load: Load) -> float | None:
    """`max(requests / rpm, tokens in and out / tpm)` in seconds; None without either limit."""
    minutes = []
    if limits.rpm is not None:
        minutes.append(load.requests / limits.rpm)
    if limits.tpm is not None:
        minutes.append((load.input_tokens + load.output_tokens) / limits.tpm)
    return 60 * max(minutes) if minutes else None


def _sum(loads: Iterable[Load]) -> Load:
    total = Load()
    for load in loads:
        total = total.plus(load)
    return total
