"""The OpenAI wire: OpenAI itself and the many servers that speak it."""

import importlib.metadata
from functools import cache
from typing import Any

import msgspec

from shared.catalogue import Provider
from shared.errors import ModelRefusedError, ProviderFailedError, RequestRefusedError
from shared.lines import with_model
from workers.classify import message_of
from workers.provider import Outgoing, TokenUsage

_MOST_TOKENS = 10**9  # more is no count, and sums of it would overflow


class _Asked(msgspec.Struct):
    model: str
    stream: Any = None


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
    error: Any = None


class _WithoutUsage(msgspec.Struct):
    choices: list[msgspec.Raw]
    error: Any = None


_asked = msgspec.json.Decoder(_Asked)
_completion = msgspec.json.Decoder(_Completion)
_without_usage = msgspec.json.Decoder(_WithoutUsage)


@cache
def _user_agent() -> str:
    return f"llm-edge-agent/{importlib.metadata.version('llm-edge-agent')}"


class OpenAIWire:
    """The contract: `workers.provider.Wire`."""

    def encode(self, provider: Provider, endpoint: str, body: bytes, api_key: str | None) -> Outgoing:
        asked = _what_is_asked(body)
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
            body=body if model == asked else with_model(body, model),
            model=model,
        )

    def decode(self, provider: Provider, body: bytes, api_key: str | None) -> TokenUsage:
        try:
            if not body.isascii():
                body.decode("utf-8")
            found: _Completion | _WithoutUsage = _completion.decode(body)
        except msgspec.ValidationError:
            found = _whatever_its_usage(provider, body, api_key)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProviderFailedError(
                f"{provider.id} answered 200 with a body that is no JSON.", code="invalid_answer"
            ) from exc
        if found.error:
            raise _error_in_a_200(provider, body, api_key)
        return _counts(found.usage if isinstance(found, _Completion) else None)


def _what_is_asked(body: bytes) -> str:
    """The model's name, from a body that may be sent."""
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestRefusedError(
            "The request's body is not a JSON object with a model name.", code="invalid_request"
        ) from exc
    if asked.stream:
        raise RequestRefusedError("stream is true; leave it out.", code="stream_not_supported")
    return asked.model


def _whatever_its_usage(provider: Provider, body: bytes, api_key: str | None) -> _WithoutUsage:
    """A completion whose usage has a form of its own is still an answer; anything else is not."""
    try:
        return _without_usage.decode(body)
    except msgspec.DecodeError as exc:
        if message_of(body, api_key):
            raise _error_in_a_200(provider, body, api_key) from exc
        raise ProviderFailedError(
            f"{provider.id} answered 200 with JSON that is no completion: {str(exc)[:200].rstrip('.')}.",
            code="invalid_answer",
        ) from exc


def _error_in_a_200(provider: Provider, body: bytes, api_key: str | None) -> ProviderFailedError:
    return ProviderFailedError(
        f"{provider.id} answered 200 with an error: {message_of(body, api_key) or 'no message'}",
        brief=f"{provider.id} answered 200 with an error.",
        code="error_in_answer",
    )


def _counts(used: _Usage | None) -> TokenUsage:
    if used is None or used.prompt_tokens is None or used.completion_tokens is None:
        return TokenUsage()
    if max(used.prompt_tokens, used.completion_tokens) > _MOST_TOKENS:
        return TokenUsage()
    prompt, completion = max(0, used.prompt_tokens), max(0, used.completion_tokens)
    of_prompt, of_completion = used.prompt_tokens_details, used.completion_tokens_details
    cached = (of_prompt.cached_tokens if of_prompt else None) or 0
    reasoning = (of_completion.reasoning_tokens if of_completion else None) or 0
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(max(0, cached), prompt),  # each a part of the other
        reasoning_tokens=min(max(0, reasoning), completion),
        known=True,
    )
