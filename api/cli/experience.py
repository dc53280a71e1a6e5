"""What a server's answers have taught of tokens, as its `GET /v1/providers` tells it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.catalogue import Provider
from shared.tokens import Learned, learned_of


@dataclass(frozen=True)
class Experience:
    """By the provider's id, then by model. `why_none`: why no server was heard; empty where one was."""

    server: str = ""
    why_none: str = "no server was asked"
    known: Mapping[str, Mapping[str, Learned]] = field(default_factory=dict)

    def of(self, provider: Provider, model: str) -> Learned:
        """Of the model asked for, at a provider of the same id there."""
        return learned_of(self.known.get(provider.id, {}), model if model in provider.models else "")


NO_EXPERIENCE = Experience()


def experience_of(server: str, raw: Mapping[str, Any]) -> Experience:
    """`raw`: the list of providers, from whatever a server says."""
    found: dict[str, dict[str, Learned]] = {}
    for provider in _objects(raw.get("data")):
        entries = found.setdefault(str(provider.get("id")), {})
        for told in _objects(provider.get("tokens")):
            answers, ratio, output_tokens = (
                _number(told.get(n)) for n in ("answers", "ratio", "output_tokens")
            )
            entries[str(told.get("model"))] = Learned(int(answers), 1.0, ratio, output_tokens)
    return Experience(server, "", found)


def _number(found: Any) -> float:
    """0 for what is none; a ratio of 0 corrects nothing, and 0 answers have taught nothing."""
    return float(found) if isinstance(found, int | float) and 0 <= found < _MOST else 0.0


_MOST = 1e12


def _objects(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
