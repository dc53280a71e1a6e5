"""The columns of the table that comes out: the input's own, then ours. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from api.cli.outcome import UsageError
from api.cli.rows.answer import Outcome
from api.cli.rows.values import is_null

Kind = Literal["bool", "int", "float", "text"]

OURS: dict[str, Kind] = {
    "answer": "text",
    "error": "text",
    "finish_reason": "text",
    "provider": "text",
    "input_tokens": "int",
    "output_tokens": "int",
    "cost_usd": "float",
}
"""What is joined to each row, in this order."""

_MOST_INT = 2**63


def check_clash(columns: Iterable[str], prefix: str, file: str) -> None:
    """Raises UsageError where a column that comes in has the name of one of ours."""
    ours = {prefix + name for name in OURS}
    clashing = [name for name in columns if name in ours]
    if clashing:
        raise UsageError(
            f"{file} already has the column{'s' * (len(clashing) > 1)} {', '.join(map(repr, clashing))}."
            " Choose other names for the new ones, for example with --prefix llm_ (llm_answer, llm_error, …)."
        )


def cells(outcome: Outcome, prefix: str) -> dict[str, Any]:
    """Our columns of one row."""
    values = {name: getattr(outcome, name) for name in OURS}
    values["cost_usd"] = None if outcome.cost_usd is None else float(outcome.cost_usd)
    return {prefix + name: value for name, value in values.items()}


class Kinds:
    """Learns what each column of untyped rows holds, for a format that wants to know it. Integers and floats mix to floats."""

    def __init__(self) -> None:
        self._found: dict[str, set[Kind]] = {}

    def learn(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            kinds = self._found.setdefault(name, set())
            if not is_null(value):
                kinds.add(_kind(value))

    def of(self, name: str) -> Kind:
        """Whatever does not fit together is text."""
        kinds = self._found.get(name, set())
        if kinds == {"int", "float"}:
            return "float"
        return next(iter(kinds)) if len(kinds) == 1 else "text"

    @property
    def columns(self) -> list[str]:
        """In the order in which they were first seen."""
        return list(self._found)


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_MOST_INT <= value < _MOST_INT else "text"
    return "float" if isinstance(value, float) else "text"
