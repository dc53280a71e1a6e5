"""What a request needs of a provider, read from its body: the capabilities of the providers file. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from shared.catalogue import Capability

_body = msgspec.json.Decoder(dict[str, Any])

_FORMATS: dict[object, Capability] = {"json_object": "json_object", "json_schema": "json_schema"}
_PARTS: dict[object, Capability] = {"image_url": "vision", "input_audio": "audio", "file": "files"}


def needs_in(body: bytes) -> frozenset[Capability]:
    """The same of a body as it came; one that is no JSON object needs nothing."""
    try:
        return needs_of(_body.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()


def needs_of(body: Mapping[str, Any]) -> frozenset[Capability]:
    """By OpenAI's fields: what is absent, empty or no such thing needs nothing; the provider will judge its form.

    `tools`: tools, or functions as they were called before; `json_object`, `json_schema`: response_format; `vision`, `audio`,
    `files`: parts of messages, and audio as the answer; `logprobs`: also as the number of /v1/completions, where 0 is one;
    `n`: more than one choice.
    """
    needs = {need for part in _parts(body.get("messages")) if (need := _named(_PARTS, part))}
    if body.get("tools") or body.get("functions"):
        needs.add("tools")
    if form := _named(_FORMATS, body.get("response_format")):
        needs.add(form)
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        needs.add("audio")
    asked = body.get("logprobs")
    if not (asked is None or asked is False) or body.get("top_logprobs"):
        needs.add("logprobs")
    choices = body.get("n")
    if isinstance(choices, int) and choices > 1:
        needs.add("n")
    return frozenset(needs)


def _parts(messages: object) -> Iterator[object]:
    """The parts of all messages that consist of parts."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from content


def _named(table: Mapping[object, Capability], thing: object) -> Capability | None:
    """The capability that a thing's `type` stands for."""
    kind = thing.get("type") if isinstance(thing, dict) else None
    return table.get(kind) if isinstance(kind, str) else None
