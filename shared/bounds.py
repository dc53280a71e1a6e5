"""What one request can take at most, read strictly, for whoever runs under a ceiling on what may be spent. Pure.

An estimate may overlook what it does not know; a bound may not. So only fields whose cost is known may stand in the body, and
their values must be plain: a provider may read `"n": "100"` as a hundred answers, and some fields are paid for by other prices.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.jobs import Fault
from shared.tokens import holds_media

CODE = "cost_not_bounded"

PLAIN = frozenset(
    {
        *(
            "model",
            "messages",
            "prompt",
            "suffix",
            "echo",
            "stream",
            "user",
            "metadata",
            "store",
            "seed",
            "stop",
            "routing",
        ),
        *(
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
        ),
        *("logit_bias", "logprobs", "top_logprobs", "response_format", "tool_choice", "parallel_tool_calls"),
        *("functions", "function_call", "reasoning_effort", "verbosity", "min_tokens", "stop_token_ids"),
        *("safety_identifier", "prompt_cache_key", "max_tokens", "max_completion_tokens", "n", "best_of"),
    }
)
"""Fields that cost nothing beside the tokens in and out, which they do not raise beyond `max_tokens`."""

_GUARDED = frozenset({"tools", "modalities", "service_tier"})
_STANDARD_TIERS = (None, "default", "standard", "flex")
_COUNTS = ("max_tokens", "max_completion_tokens", "n", "best_of")


class Bounds(msgspec.Struct, frozen=True):
    """`max_tokens` is of each answer, None where the request says nothing. `media`: its bytes tell nothing of its tokens."""

    input_bytes: int
    answers: int = 1
    max_tokens: int | None = None
    media: bool = False


def bounds_of(body: bytes) -> Bounds | Fault:
    """Of a request's body; or the field that keeps it from being bounded."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _fault(None, "its body cannot be read")
    return _wrong_field(fields) or Bounds(
        len(body),
        max(_count(fields, "n") or 1, _count(fields, "best_of") or 1) * _prompts(fields.get("prompt")),
        max(
            (
                n
                for name in ("max_tokens", "max_completion_tokens")
                if (n := _count(fields, name)) is not None
            ),
            default=None,
        ),
        media=holds_media(fields.get("messages")),
    )


def _wrong_field(fields: Mapping[str, Any]) -> Fault | None:
    for name in _COUNTS:
        value = fields.get(name)
        if value is not None and not (type(value) is int and value > 0):
            return _fault(name, f"{name} must be a whole number above 0")
    for name in fields:
        if name not in PLAIN and name not in _GUARDED and fields[name] is not None:
            return _fault(name, f"what {name[:64]} costs is not known here; leave it out")
    if fields.get("service_tier") not in _STANDARD_TIERS:
        return _fault("service_tier", "another service_tier than 'default' or 'flex' may cost more")
    if fields.get("modalities") not in (None, ["text"]):
        return _fault("modalities", "answers that are not text have prices of their own")
    if not _only_functions(fields.get("tools")):
        return _fault("tools", "tools that are not functions of your own may cost more than tokens")
    return None


def _only_functions(tools: Any) -> bool:
    if tools is None:
        return True
    return isinstance(tools, list) and all(isinstance(t, dict) and t.get("type") == "function" for t in tools)


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None


def _prompts(prompt: Any) -> int:
    """How many answers the prompt of /v1/completions asks for: one for each, where it is a list of them."""
    several = isinstance(prompt, list) and any(not isinstance(item, int) for item in prompt)
    return max(len(prompt), 1) if several else 1


def _fault(param: str | None, why: str) -> Fault:
    message = f"What may be spent is limited, and what this request can cost at most is not known: {why}."
    return Fault(code=CODE, message=message, param=param)
