"""Requests as they come over OpenAI's wire, reduced to what the simulator looks at."""

from typing import Annotated

import msgspec
from msgspec import Meta

from workers.simulator.refusals import Refusal, refuse

MOST_CHOICES = 128
_CHARS_PER_TOKEN = 4
_PER_MESSAGE = 4
_PER_CHAT = 3
_PER_OTHER_PART = 85
"""What OpenAI counts for a small image."""
_COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for the older endpoint."""

Text = Annotated[str, Meta(min_length=1)]
Choices = Annotated[int, Meta(ge=1, le=MOST_CHOICES)]
AtLeastOne = Annotated[int, Meta(ge=1)]
AtLeastZero = Annotated[int, Meta(ge=0)]
TokenIds = list[int]


class Asked(msgspec.Struct, frozen=True):
    """One readable request. `prompt` is its last user message; `texts` are the prompts to answer, `n` times each."""

    model: str
    prompt: str
    prompt_tokens: int
    max_tokens: int | None
    texts: tuple[str, ...]
    n: int = 1

    @property
    def choices(self) -> int:
        return len(self.texts) * self.n


class _Part(msgspec.Struct, gc=False):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content if part.text)

    @property
    def tokens(self) -> int:
        others = sum(part.text is None for part in self.content) if isinstance(self.content, list) else 0
        return _PER_MESSAGE + tokens_of(self.text) + others * _PER_OTHER_PART


class _Chat(msgspec.Struct):
    model: Text
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_completion_tokens: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    n: Choices | None = None
    stream: bool | None = None


class _Completion(msgspec.Struct):
    model: Text
    prompt: str | list[str | int | TokenIds] = ""
    max_tokens: AtLeastZero | None = None
    n: Choices | None = None
    stream: bool | None = None


_chat = msgspec.json.Decoder(_Chat)
_completion = msgspec.json.Decoder(_Completion)


def read_chat(body: bytes) -> Asked | Refusal:
    """A request to /v1/chat/completions, or what OpenAI would say to it."""
    try:
        asked = _chat.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return _unreadable(exc)
    if asked.stream:
        return _no_streams()
    prompt = next((message.text for message in reversed(asked.messages) if message.role == "user"), "")
    return Asked(
        model=asked.model,
        prompt=prompt,
        prompt_tokens=_PER_CHAT + sum(message.tokens for message in asked.messages),
        max_tokens=asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens,
        texts=(prompt,),
        n=asked.n or 1,
    )


def read_completion(body: bytes) -> Asked | Refusal:
    """A request to /v1/completions, or what OpenAI would say to it. Prompts given as token ids have no text."""
    try:
        asked = _completion.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return _unreadable(exc)
    if asked.stream:
        return _no_streams()
    prompts = _prompts(asked.prompt)
    if not prompts:
        return refuse(
            400,
            "prompt must be a string, or a list of strings, token ids or lists of token ids",
            param="prompt",
        )
    texts = tuple(text for text, _ in prompts)
    return Asked(
        model=asked.model,
        prompt="\n".join(texts),
        prompt_tokens=sum(tokens for _, tokens in prompts),
        max_tokens=_COMPLETION_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
        texts=texts,
        n=asked.n or 1,
    )


def _prompts(prompt: str | list[str | int | TokenIds]) -> list[tuple[str, int]]:
    """Each prompt's text and tokens; none where the list is empty or mixed."""
    if isinstance(prompt, str):
        return [(prompt, tokens_of(prompt))]
    if prompt and all(isinstance(item, int) for item in prompt):
        return [("", len(prompt))]
    texts = [(item, tokens_of(item)) for item in prompt if isinstance(item, str)]
    ids = [("", len(item)) for item in prompt if isinstance(item, list)]
    return max(texts, ids, key=len) if len(prompt) in {len(texts), len(ids)} else []


def tokens_of(text: str) -> int:
    """An estimate: four characters a token."""
    return -(-len(text) // _CHARS_PER_TOKEN)


def _no_streams() -> Refusal:
    message = "The simulator does not stream; leave `stream` out or set it to false."
    return refuse(400, message, code="unsupported_value", param="stream")


def _unreadable(error: Exception) -> Refusal:
    if isinstance(error, msgspec.ValidationError):
        reason, _, path = str(error).partition(" - at `$")
        param = path.strip(".`") or None
        missing = f" at {param}" if param else ""
        return refuse(400, f"Invalid request{missing}: {reason}.", param=param)
    return refuse(400, f"We could not parse the JSON body of your request: {error}.")
