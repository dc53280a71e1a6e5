"""The OpenAI wire: OpenAI itself and the many servers that speak it."""

import importlib.metadata
from functools import cache
from typing import Any

import msgspec

from shared.catalogue import Provider
from shared.errors import ModelRefusedError, ProviderFailedError
from workers.provider import Outgoing, TokenUsage


class _Asked(msgspec.Struct):
    model: str


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage | None = None


class _Choices(msgspec.Struct):
    choices: list[Any]


_MOST_TOKENS = 10**9  # more is no count, and sums of it would overflow

_asked = msgspec.json.Decoder(_Asked)
_completion = msgspec.json.Decoder(_Completion)
_choices = msgspec.json.Decoder(_Choices)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


@cache
def _user_agent() -> str:
    return f"llm-edge-agent/{importlib.metadata.version('llm-edge-agent')}"


class OpenAIWire:
    """The contract: `workers.provider.Wire`."""

    def encode(self, provider: Provider, endpoint: str, body: bytes, api_key: str | None) -> Outgoing:
        asked = _asked.decode(body).model
        model = provider.model_for(asked)
        if model is None:
            raise ModelRefusedError(f"{provider.id} does not serve the model '{asked[:100]}'.")
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": _user_agent(),
        }
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        return Outgoing(
            url=provider.endpoint + endpoint.removeprefix("/v1"),
            headers=headers,
            body=body if model == asked else _with_model(body, model),
        )

    def decode(self, provider: Provider, body: bytes) -> TokenUsage:
        try:
            if not body.isascii():
                body.decode("utf-8")
            found = _completion.decode(body)
        except msgspec.ValidationError as exc:
            return self._without_usage(provider, body, exc)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProviderFailedError(f"{provider.id} answered 200 with a body that is no JSON.") from exc
        used = found.usage
        if used is None or used.prompt_tokens is None or used.completion_tokens is None:
            return TokenUsage()
        if max(used.prompt_tokens, used.completion_tokens) > _MOST_TOKENS:
            return TokenUsage()
        prompt, completion = used.prompt_tokens_details, used.completion_tokens_details
        return TokenUsage(
            prompt_tokens=max(0, used.prompt_tokens),
            completion_tokens=max(0, used.completion_tokens),
            cached_tokens=_count(prompt.cached_tokens if prompt else None),
            reasoning_tokens=_count(completion.reasoning_tokens if completion else None),
            known=True,
        )

    @staticmethod
    def _without_usage(provider: Provider, body: bytes, exc: msgspec.ValidationError) -> TokenUsage:
        """A completion whose usage has a form of its own is still an answer; anything else is not."""
        try:
            _choices.decode(body)
        except (msgspec.DecodeError, RecursionError):
            raise ProviderFailedError(
                f"{provider.id} answered 200 with JSON that is no completion: {str(exc)[:200]}."
            ) from exc
        return TokenUsage()


def _count(tokens: int | None) -> int:
    return min(max(0, tokens or 0), _MOST_TOKENS)


def _with_model(body: bytes, model: str) -> bytes:
    """The body with another model name; every other value byte for byte."""
    fields: dict[str, Any] = dict(_object.decode(body))
    fields["model"] = model
    return _encode(fields)
