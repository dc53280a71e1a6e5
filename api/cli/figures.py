"""A finished batch in figures: jobs, tokens, cost and latency per provider, from the batch and its output lines. Pure."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from api.cli.view import BatchView, ProviderView, money, whole


@dataclass(frozen=True)
class Row:
    """One provider, or all of them. Seconds are None where no line tells them, the cost where a price is unknown."""

    name: str
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    p50_s: float | None
    p95_s: float | None


@dataclass
class Told:
    """What the output lines tell about one provider."""

    jobs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)
    durations_s: list[float] = field(default_factory=list)

    def add(self, line: dict[str, Any], routing: dict[str, Any]) -> None:
        usage = answer_of(line).get("usage")
        usage = usage if isinstance(usage, dict) else {}
        self.jobs += 1
        self.input_tokens += whole(usage.get("prompt_tokens"))
        self.output_tokens += whole(usage.get("completion_tokens"))
        cost = money(routing.get("cost_usd"))
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        duration = routing.get("duration_s")
        if isinstance(duration, (int, float)):
            self.durations_s.append(float(duration))


@dataclass
class Reading:
    """What one pass over the output file finds."""

    providers: dict[str, Told] = field(default_factory=dict)
    simulated: int = 0
    example: tuple[str, str] | None = None
    """The first line's custom_id and answer."""


def answer_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's answer in an output line; an empty one where there is none."""
    response = line.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    return body if isinstance(body, dict) else {}


def read(lines: Iterable[bytes]) -> Reading:
    """Go through an output file once. Lines that are no JSON objects are passed over."""
    reading = Reading()
    for raw in lines:
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if not isinstance(line, dict):
            continue
        routing = line.get("routing")
        routing = routing if isinstance(routing, dict) else {}
        provider = routing.get("provider")
        reading.providers.setdefault(provider if isinstance(provider, str) else "", Told()).add(line, routing)
        answer = answer_of(line)
        reading.simulated += answer.get("system_fingerprint") == "simulated"
        if reading.example is None and (text := text_of(answer)):
            reading.example = (str(line.get("custom_id")), text)
    return reading


def text_of(answer: Mapping[str, Any]) -> str | None:
    """What was answered, of a chat or of a legacy completion; None where it is no text."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None


def rows(batch: BatchView, reading: Reading) -> list[Row]:
    """One row a provider, then the total. The batch's own counts win over what the lines tell."""
    shares = batch.providers or tuple(
        _share(name, told) for name, told in sorted(reading.providers.items()) if name
    )
    found = [_row(share, reading.providers.get(share.id, Told()).durations_s) for share in shares]
    durations_s = [seconds for told in reading.providers.values() for seconds in told.durations_s]
    return [*found, _total(batch, reading, found, durations_s)]


def _share(name: str, told: Told) -> ProviderView:
    return ProviderView(
        name,
        completed=told.jobs,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        cost_usd=told.cost_usd,
    )


def _row(share: ProviderView, durations_s: Sequence[float]) -> Row:
    return Row(
        share.id,
        share.completed,
        share.failed,
        share.input_tokens,
        share.output_tokens,
        share.cost_usd,
        percentile(durations_s, 0.5),
        percentile(durations_s, 0.95),
    )


def _total(batch: BatchView, reading: Reading, found: Sequence[Row], durations_s: Sequence[float]) -> Row:
    told = reading.providers.values()
    costs = [row.cost_usd for row in found]
    known = [cost for cost in costs if cost is not None]
    summed = sum(known, Decimal(0)) if costs and len(known) == len(costs) else None
    return Row(
        "all",
        batch.completed,
        batch.failed,
        batch.input_tokens or sum(part.input_tokens for part in told),
        batch.output_tokens or sum(part.output_tokens for part in told),
        summed if batch.cost_usd is None else batch.cost_usd,
        percentile(durations_s, 0.5),
        percentile(durations_s, 0.95),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
