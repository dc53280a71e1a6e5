"""What a batch will take, before it is handed in: tokens, cost and time, from its lines, the providers file and what is learned. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Self

from api.cli.experience import NO_EXPERIENCE, Experience
from shared.catalogue import Catalogue, Ceilings, Provider
from shared.jobs import Fault, Usage
from shared.lines import checked_lines, read_request
from shared.offer import AnyOffer, CatalogueOffer
from shared.prices import tariff_of
from shared.tokens import Expected, Learned, Measured, expect, measure, together


@dataclass
class Load:
    """Requests and their tokens. `unbounded` of them set no `max_tokens`: `most_output_tokens` is of the others.

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

    def __iadd__(self, other: Self) -> Self:
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.most_output_tokens += other.most_output_tokens
        self.unbounded += other.unbounded
        self.guessed += other.guessed
        return self


@dataclass
class Share:
    """All that one provider can serve, were it the only one to do it.

    Dollars are of what has a price, which is nothing like the whole where `unpriced` names models; `listed` names the list prices.
    """

    provider: Provider
    load: Load = field(default_factory=Load)
    loads: dict[str, Load] = field(default_factory=dict)
    """The same by the model asked for."""
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
        return alone_s(self.provider, self.loads)

    def add(self, model: str, call: Expected, *, guessed: bool) -> None:
        self.load.add(call, guessed=guessed)
        self.loads.setdefault(model, Load()).add(call, guessed=guessed)
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
        self._shares = [Share(provider) for provider in catalogue.providers if provider.enabled]
        self._serving: dict[str, list[Share]] = {}
        self._learned: dict[str, list[tuple[Share, Learned]]] = {}
        self.learned: dict[str, Learned] = {}
        """By the model asked for, of all providers that serve it together."""

    def add(self, model: str, asked: Measured) -> None:
        """A provider takes what its own answers have taught; where it has none, what the others' have."""
        if model not in self._learned:
            self._learn(model)
        whole = self.learned[model]
        guessed = not whole.calls
        self.loads.setdefault(model, Load()).add(expect(asked, whole), guessed=guessed)
        for share, learned in self._learned[model]:
            share.add(model, expect(asked, learned), guessed=guessed)

    def _learn(self, model: str) -> None:
        shares = self._who(model)
        known = [self.experience.of(share.provider, model) for share in shares]
        whole = self.learned[model] = together(known)
        self._learned[model] = [
            (share, own if own.calls else whole) for share, own in zip(shares, known, strict=True)
        ]

    def _who(self, model: str) -> list[Share]:
        """The providers that serve a model."""
        found = self._serving.get(model)
        if found is None:
            found = [share for share in self._shares if share.provider.model_for(model) is not None]
            self._serving[model] = found
        return found

    @property
    def whole(self) -> Load:
        return _sum(self.loads.values())

    @property
    def shares(self) -> list[Share]:
        """Of the providers that can serve some of it, in the file's order."""
        return [share for share in self._shares if share.load.requests]

    @property
    def without_limits(self) -> list[str]:
        """Providers whose speed nothing tells."""
        return [share.provider.id for share in self.shares if share.time_s is None]

    @property
    def time_s(self) -> float | None:
        """All providers at their limits, each with as much as it can do; None where the speed of one is not known.

        What only some can serve takes these so long at least: the longest of such parts and of the whole.
        """
        if not self.loads or self.without_limits:
            return None
        groups = [self._who(model) for model in self.loads]
        return max(self._together_s(group) for group in [*groups, self.shares])

    def _together_s(self, group: list[Share]) -> float:
        """Of what nobody outside the group can serve: `1 / sum(1 / time alone)`."""
        members = {share.provider.id for share in group}
        only = [m for m in self.loads if members.issuperset(share.provider.id for share in self._who(m))]
        times = [alone_s(share.provider, {model: self.loads[model] for model in only}) for share in group]
        return 1 / sum(1 / alone for alone in times if alone)


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
            found.add(model or result.model, measure(read_request(place.data).body))
    return found


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
        total += load
    return total
