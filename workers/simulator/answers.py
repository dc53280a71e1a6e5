"""Successful answers, in the exact shape of OpenAI's; what never changes is written out beforehand."""

import msgspec

from workers.simulator import texts
from workers.simulator.asked import Asked
from workers.simulator.decide import Decision

_encode = msgspec.json.Encoder().encode

_ANSWER = (
    b'{"id":"%b-%b","object":"%b","created":%d,"model":%b,"choices":[%b],'
    b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},'
    b'"service_tier":"default","system_fingerprint":"simulated"}'
)
_CHAT_CHOICE = (
    b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null,"annotations":[]},'
    b'"logprobs":null,"finish_reason":"%b"}'
)
_TEXT_CHOICE = b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":"%b"}'
_ID_CHARS = 29


def chat(asked: Asked, decision: Decision, now: float) -> bytes:
    """The body for /v1/chat/completions; `now` in Unix seconds."""
    return _answer(asked, decision, now, (b"chatcmpl", b"chat.completion", _CHAT_CHOICE))


def completion(asked: Asked, decision: Decision, now: float) -> bytes:
    """The body for /v1/completions; `now` in Unix seconds."""
    return _answer(asked, decision, now, (b"cmpl", b"text_completion", _TEXT_CHOICE))


def malformed(body: bytes) -> bytes:
    """An answer broken off in the middle: no JSON any more."""
    return body[: len(body) // 2]


def models(names: tuple[str, ...] | None) -> bytes:
    """The body for GET /v1/models; where any model will do, one stands for all."""
    known = ("simulated",) if names is None else names
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in known]
    return _encode({"object": "list", "data": data})


def _answer(asked: Asked, decision: Decision, now: float, shape: tuple[bytes, bytes, bytes]) -> bytes:
    prefix, kind, choice = shape
    reason = b"length" if decision.cut else b"stop"
    written = [choice % (n, _encode(text), reason) for n, text in enumerate(_texts(asked, decision))]
    tokens = decision.completion_tokens * asked.choices
    return _ANSWER % (
        prefix,
        decision.key[:_ID_CHARS].encode(),
        kind,
        int(now),
        _encode(asked.model),
        b",".join(written),
        asked.prompt_tokens,
        tokens,
        asked.prompt_tokens + tokens,
    )


def _texts(asked: Asked, decision: Decision) -> list[str]:
    variant = int(decision.key[:8], 16)
    words, cut = decision.completion_tokens, decision.cut
    return [texts.answer(text, words, variant + n, cut=cut) for text in asked.texts for n in range(asked.n)]
