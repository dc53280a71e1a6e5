"""Successful answers, in the exact shape of OpenAI's."""

import msgspec

from workers.simulator import texts
from workers.simulator.asked import Asked
from workers.simulator.decide import Decision

FINGERPRINT = "simulated"
_NO_PROMPT_DETAILS = msgspec.Raw(b'{"cached_tokens":0,"audio_tokens":0}')
_NO_COMPLETION_DETAILS = msgspec.Raw(
    b'{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}'
)
_encode = msgspec.json.Encoder().encode


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: msgspec.Raw = _NO_PROMPT_DETAILS
    completion_tokens_details: msgspec.Raw = _NO_COMPLETION_DETAILS


class _Message(msgspec.Struct, gc=False):
    content: str
    role: str = "assistant"
    refusal: None = None
    annotations: tuple[()] = ()


class _ChatChoice(msgspec.Struct):
    index: int
    message: _Message
    finish_reason: str
    logprobs: None = None


class _TextChoice(msgspec.Struct, gc=False):
    text: str
    index: int
    finish_reason: str
    logprobs: None = None


class _Answer(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChatChoice] | list[_TextChoice]
    usage: _Usage
    service_tier: str = "default"
    system_fingerprint: str = FINGERPRINT


def chat(asked: Asked, decision: Decision, now: float) -> bytes:
    """The body for /v1/chat/completions."""
    reason = _reason(decision)
    choices = [_ChatChoice(n, _Message(text), reason) for n, text in enumerate(_texts(asked, decision))]
    usage = _usage(asked, decision)
    return _encode(
        _Answer(f"chatcmpl-{decision.key[:29]}", "chat.completion", int(now), asked.model, choices, usage)
    )


def completion(asked: Asked, decision: Decision, now: float) -> bytes:
    """The body for /v1/completions."""
    reason = _reason(decision)
    choices = [_TextChoice(text, n, reason) for n, text in enumerate(_texts(asked, decision))]
    usage = _usage(asked, decision)
    return _encode(
        _Answer(f"cmpl-{decision.key[:29]}", "text_completion", int(now), asked.model, choices, usage)
    )


def malformed(body: bytes) -> bytes:
    """An answer broken off in the middle: no JSON any more."""
    return body[: len(body) // 2]


def models(names: tuple[str, ...] | None) -> bytes:
    """The body for GET /v1/models; where any model will do, one stands for all."""
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": "simulator"}
        for name in names or ("simulated",)
    ]
    return _encode({"object": "list", "data": data})


def _texts(asked: Asked, decision: Decision) -> list[str]:
    variant = int(decision.key[:8], 16)
    words, cut = decision.completion_tokens, decision.cut
    return [texts.answer(text, words, variant + n, cut=cut) for text in asked.texts for n in range(asked.n)]


def _usage(asked: Asked, decision: Decision) -> _Usage:
    completion_tokens = decision.completion_tokens * asked.choices
    return _Usage(asked.prompt_tokens, completion_tokens, asked.prompt_tokens + completion_tokens)


def _reason(decision: Decision) -> str:
    return "length" if decision.cut else "stop"
