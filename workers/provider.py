"""What a provider kind is: pure encoding of a request and decoding of an answer. The calling itself is the transport's.

A further kind is a file in `workers/providers/` with these two functions, and a line in the dictionary there.
"""

from typing import Protocol

import msgspec

from shared.catalogue import Provider


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider reports them; `known` is False where it reported none, or nothing sensible."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    known: bool = False


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one provider, ready to be sent by POST. The key is in `headers`, so this is never logged."""

    url: str
    headers: dict[str, str]
    body: bytes
    model: str
    """The provider's own name of the model."""

    def __repr__(self) -> str:
        return f"Outgoing(url={self.url!r}, model={self.model!r})"


class Wire(Protocol):
    """A provider's dialect."""

    def encode(self, provider: Provider, endpoint: str, body: bytes, api_key: str | None) -> Outgoing:
        """`endpoint` is ours (`/v1/chat/completions`), `body` the job's JSON.

        Raises ModelRefusedError where the provider does not serve the model, RequestRefusedError where the body cannot be sent.
        """
        ...

    def decode(self, provider: Provider, body: bytes, api_key: str | None) -> TokenUsage:
        """The usage told by a 200's body. Raises ProviderFailedError where the body is no completion; without the key, if it echoes it."""
        ...
