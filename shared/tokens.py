"""How many tokens a request will take: an estimate from its body, and what a model's answers so far teach. Pure, no tokenizer, no network.

The weights were fitted to OpenAI's encoding o200k_base: in sum, docstrings, Python, English prose, JSON, tables and thirteen other
languages come out within 15 %, Russian 28 % high. Other models' tokenizers differ by more, which is what `Learned` is for.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

DEFAULT_ANSWER_TOKENS = 256
"""An answer nobody knows anything about: a few paragraphs. `max_tokens` bounds it, and a model's own average replaces it."""

PER_MESSAGE, PER_CHAT = 4, 3
"""Role and separators, and the beginning of the answer: OpenAI's published counts."""

LOW_DETAIL_TOKENS, IMAGE_TOKENS = 85, 765
"""OpenAI's published counts for an image of low detail, and for one of 1024 x 1024 in high detail. Other media count as the first."""

PLAIN_MAX_TOKENS = 16
"""What a /v1/completions request without `max_tokens` gets from OpenAI, and from vLLM."""

_LETTER, _DIGIT, _SPACE, _SIGN = 200, 720, 215, 620
_SCRIPTS = (
    (re.compile("[\u0080-\u024f]+"), 1300),  # accented Latin letters, which break words up
    (re.compile("[\u0250-\u07ff]+"), 380),  # Greek, Cyrillic, Hebrew, Arabic
    (re.compile("[\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]+"), 870),  # Chinese, Japanese
    (re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]+"), 700),  # Korean
    (re.compile("[\U00010000-\U0010ffff]+"), 1500),  # emoji
)
_OTHER_SCRIPT = 420
"""Thousandths of a token for a character of each kind."""

_JSON = 700
"""Thousandths of what compact JSON would be as text: its signs come in runs, and a run is one token."""

_DIGITS = b"0123456789"
_SPACES = b" \t\r\n"
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")


class _Body(msgspec.Struct):
    messages: Any = None
    prompt: Any = None
    tools: Any = None
    functions: Any = None
    response_format: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None
    best_of: Any = None


_body = msgspec.json.Decoder(_Body)
_json = msgspec.json.Encoder().encode


class Measured(msgspec.Struct, frozen=True):
    """What a request's body says: an estimate of its own tokens, how many answers it wants, and how long each may be (None: no bound).

    `media`: it holds something else than text, of which its bytes tell nothing.
    """

    input_tokens: int
    answers: int = 1
    max_tokens: int | None = None
    media: bool = False

    @property
    def most_output_tokens(self) -> int | None:
        return None if self.max_tokens is None else self.max_tokens * self.answers


class Lesson(msgspec.Struct, frozen=True, array_like=True):
    """What one answered call teaches: our estimate of its input, how many answers it asked for, and the tokens that were reported."""

    estimated: int
    answers: int
    input_tokens: int
    output_tokens: int


class Learned(msgspec.Struct, frozen=True, array_like=True):
    """What one model's answers teach: moving averages over its calls. `estimated` are our estimates of the `input_tokens` it reported."""

    calls: int = 0
    estimated: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def ratio(self) -> float:
        """What to multiply an estimate by. Of averages, not an average of ratios: it must be right for sums."""
        return self.input_tokens / self.estimated if self.input_tokens > 0 and self.estimated > 0 else 1.0

    def after(self, lesson: Lesson) -> "Learned":
        """With one more call. The plain average of the first calls turns into a moving one over about WINDOW."""
        share = 1 / min(self.calls + 1, WINDOW)
        each = lesson.output_tokens / lesson.answers
        return Learned(
            self.calls + 1,
            self.estimated + share * (lesson.estimated - self.estimated),
            self.input_tokens + share * (lesson.input_tokens - self.input_tokens),
            self.output_tokens + share * (each - self.output_tokens),
        )


WINDOW = 50
"""Calls that a moving average looks back on."""

NOTHING_LEARNED = Learned()

MOST_MODELS = 50
"""Of one provider; what is learned of further ones is kept together, as `OTHERS`."""

OTHERS = "*"
"""Also of the models whose names are merely passed on, since these come from clients."""


def entry_of(known: Mapping[str, Learned], model: str) -> str:
    """Under which name a provider's model is learned. `model`: as the providers file names it by itself, or empty."""
    return model if model and (model in known or len(known) < MOST_MODELS) else OTHERS


def learned_of(known: Mapping[str, Learned], model: str) -> Learned:
    return known.get(entry_of(known, model), NOTHING_LEARNED)


def together(several: Iterable[Learned]) -> Learned:
    """Of several providers, each by its calls, as far as the averages rest on them."""
    calls, weight, estimated, input_tokens, output_tokens = 0, 0, 0.0, 0.0, 0.0
    for each in several:  # once a call for each provider: quick, not short
        n = min(each.calls, WINDOW)
        calls += each.calls
        weight += n
        estimated += n * each.estimated
        input_tokens += n * each.input_tokens
        output_tokens += n * each.output_tokens
    if not weight:
        return NOTHING_LEARNED
    return Learned(calls, estimated / weight, input_tokens / weight, output_tokens / weight)


class Expected(msgspec.Struct, frozen=True):
    """Tokens of one call. `most_output_tokens` is None where nothing bounds the answer."""

    input_tokens: int
    output_tokens: int
    most_output_tokens: int | None


def expect(measured: Measured, learned: Learned = NOTHING_LEARNED) -> Expected:
    """The estimate, corrected; answers as long as the model's on average, or DEFAULT_ANSWER_TOKENS, but no longer than they may be."""
    each = round(learned.output_tokens) if learned.calls else DEFAULT_ANSWER_TOKENS
    most = measured.max_tokens
    return Expected(
        round(measured.input_tokens * learned.ratio),
        (each if most is None else min(each, most)) * measured.answers,
        measured.most_output_tokens,
    )


def measure(body: bytes) -> Measured:
    """Of any body: what is not as it should be counts as nothing, and what is no JSON object at all as the text it is."""
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Measured(text_tokens(body.decode(errors="replace")))
    extras = sum(
        json_tokens(extra) for extra in (found.tools, found.functions, found.response_format) if extra
    )
    answers = max(_whole(found.n) or 1, _whole(found.best_of) or 1)
    most = _whole(found.max_completion_tokens)
    most = _whole(found.max_tokens) if most is None else most
    if found.messages is None:
        prompts = _prompts(found.prompt)
        tokens = sum(len(p) if isinstance(p, list) else text_tokens(p) for p in prompts)
        return Measured(tokens, answers * max(len(prompts), 1), PLAIN_MAX_TOKENS if most is None else most)
    return Measured(
        messages_tokens(found.messages) + extras, answers, most, media=holds_media(found.messages)
    )


_TEXTS = frozenset({"text", "refusal"})


def holds_media(messages: Any) -> bool:
    """Whether a chat holds something else than text, or an answer of before by its id."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if message.get("audio") or (isinstance(content, list) and any(map(_is_media, content))):
            return True
    return False


def _is_media(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else "text"
    return not isinstance(kind, str) or kind not in _TEXTS


def messages_tokens(messages: Any) -> int:
    """Of a chat, with what the wire format adds."""
    found = messages if isinstance(messages, list) else []
    return PER_CHAT + sum(_message_tokens(message) for message in found if isinstance(message, dict))


def _message_tokens(message: dict[str, Any]) -> int:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    rest = {name: value for name, value in message.items() if name not in {"role", "content"} and value}
    return PER_MESSAGE + sum(map(_part_tokens, parts)) + (json_tokens(rest) if rest else 0)


def _part_tokens(part: Any) -> int:
    """Of a text, or of one part of a content: media are counted by what they are, not by the length of their encoding."""
    if not isinstance(part, dict):
        return text_tokens(part) if isinstance(part, str) else 0
    text = part.get("text", part.get("refusal"))
    if isinstance(text, str):
        return text_tokens(text)
    image = part.get("image_url")
    if image is None:
        return LOW_DETAIL_TOKENS
    low = isinstance(image, dict) and image.get("detail") == "low"
    return LOW_DETAIL_TOKENS if low else IMAGE_TOKENS


def _prompts(prompt: Any) -> list[Any]:
    """The prompts of a /v1/completions request, each a text or a list of token ids."""
    if not isinstance(prompt, list):
        return [prompt] if isinstance(prompt, str) else []
    ids = bool(prompt) and all(isinstance(item, int) for item in prompt)
    return [prompt] if ids else [item for item in prompt if isinstance(item, str | list)]


def json_tokens(value: Any) -> int:
    """Of a tool's definition and the like, as the model gets to see it: without the escapes and blanks it came with."""
    return -(-text_tokens(_json(value).decode()) * _JSON // 1000)


def text_tokens(text: str) -> int:
    """By kinds of characters: a fifth of a token for a letter, more for digits and signs, and for other scripts what these take."""
    plain = text.encode() if text.isascii() else text.encode("ascii", "ignore")
    digits, spaces, letters = (_count(plain, kind) for kind in (_DIGITS, _SPACES, _LETTERS))
    signs = len(plain) - digits - spaces - letters
    weight = _LETTER * letters + _DIGIT * digits + _SPACE * spaces + _SIGN * signs
    if len(plain) < len(text):
        weight += _beyond_ascii("".join(_BEYOND_ASCII.findall(text)))
    return -(-weight // 1000)


def _count(text: bytes, kind: bytes) -> int:
    return len(text) - len(text.translate(None, kind))


def _beyond_ascii(text: str) -> int:
    weight, other = 0, len(text)
    for script, each in _SCRIPTS:
        length = sum(map(len, script.findall(text)))
        weight += each * length
        other -= length
    return weight + _OTHER_SCRIPT * other


_MOST = 10**12
"""Of tokens or answers; whatever is beyond that says no more, and Redis' scripts could not reckon with it."""


def _whole(value: Any) -> int | None:
    """A number of tokens or answers that a body gives; None for anything else."""
    return min(value, _MOST) if type(value) is int and value > 0 else None
