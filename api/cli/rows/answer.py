"""What came of a row: read from a line of a batch's output or error file. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.cli.figures import answer_of, text_of
from api.cli.view import money, whole
from api.cli.words import printable


@dataclass(frozen=True)
class Outcome:
    """An answer, or why there is none. Tokens and cost are None where nobody told them."""

    answer: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: str | None = None

    @property
    def answered(self) -> bool:
        return self.error is None


NOTHING_TO_ASK = Outcome(error="not sent: every column that the prompt names is empty")
NOT_RUN = Outcome(error="not run yet")


def outcome_of(line: Mapping[str, Any]) -> Outcome:
    """From one line of either file."""
    body = answer_of(line)
    routing = _mapping(line.get("routing"))
    usage = _mapping(body.get("usage"))
    cost = money(routing.get("cost_usd"))
    reason = _first(body.get("choices")).get("finish_reason")
    answer = _storable(text_of(body))
    return Outcome(
        answer=answer,
        error=_error(line, body) if answer is None else None,
        finish_reason=reason if isinstance(reason, str) else None,
        provider=provider if isinstance(provider := routing.get("provider"), str) else None,
        input_tokens=whole(usage.get("prompt_tokens")) if usage else None,
        output_tokens=whole(usage.get("completion_tokens")) if usage else None,
        cost_usd=None if cost is None else format(cost, "f"),
    )


def _storable(text: str | None) -> str | None:
    """Without lone surrogates, which JSON may hold and UTF-8 may not."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _error(line: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """`code: message` of what failed; of an answer without text, what it is instead."""
    response = _mapping(line.get("response"))
    error = _mapping(line.get("error")) or _mapping(body.get("error"))
    if error:
        code = error.get("code") or error.get("type") or response.get("status_code")
        message = printable(str(error.get("message") or "no reason was given"))
        return f"{code}: {message}" if code else message
    if body.get("choices"):
        refusal = _mapping(_first(body["choices"]).get("message")).get("refusal")
        return f"refused: {printable(str(refusal))}" if refusal else "the answer has no text"
    return f"{response.get('status_code') or 'unknown'}: no answer and no reason"


def _first(choices: Any) -> Mapping[str, Any]:
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
