"""A provider's limits and adaptive windows in words, from whatever a server says. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.cli.words import count, printable


def limit_lines(page: Mapping[str, Any]) -> list[str]:
    """One line for each provider that has any: `openai: 7 of 20 calls in flight; rpm 600, 94 in the last minute, ...`."""
    lines = []
    for provider in page.get("data") or []:
        told = [*_limits(provider), *_windows(provider)]
        if told:
            lines.append(printable(f"{provider.get('id')}: {'; '.join(told)}", 500))
    return lines


def _limits(provider: Mapping[str, Any]) -> Iterator[str]:
    for each in provider.get("limits") or []:
        kind, limit, in_use = each.get("kind"), _number(each.get("limit")), _number(each.get("in_use"))
        model = each.get("model")
        whose = f" for {model}" if model else ""
        if kind == "concurrency":
            yield f"{in_use} of {limit} calls in flight{whose}"
            continue
        late = None if model else (provider.get("health") or {}).get("last_minute")
        ended = (
            f", {count(late, 'call')} in the last minute" if kind == "rpm" and isinstance(late, int) else ""
        )
        wait_s = each.get("next_in_s")
        after = f", next in {wait_s:.2f} s" if isinstance(wait_s, int | float) and wait_s > 0 else ""
        yield f"{kind} {limit}{whose}{ended}, bucket {in_use} of {_number(each.get('room'))} given out{after}"


def _windows(provider: Mapping[str, Any]) -> Iterator[str]:
    for each in provider.get("windows") or []:
        target, size = each.get("target"), each.get("size")
        whose = "" if target == provider.get("id") else f" for {str(target).partition('|')[2] or target}"
        calls = _number(each.get("in_flight"))
        if size is None:
            yield f"looks how many calls it bears{whose}, {calls} in flight"
        else:
            yield f"bears {_number(size)} calls at a time by trial{whose}, {calls} in flight"


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
