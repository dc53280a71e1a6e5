"""Prompts whose tokens a real tokenizer has counted beforehand, so that usage can be true where it matters."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from shared.errors import ConfigError
from workers.simulator.asked import Asked, tokens_of

Counts = Mapping[str, int]
"""By the first 16 hex digits of a prompt's sha256."""

_decode = msgspec.json.Decoder(dict[str, int]).decode


def key_of(prompt: str) -> str:
    return sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def counted(asked: Asked, counts: Counts) -> Asked:
    """With the prompts to answer as they were counted; what else there is, and what nobody has counted, stays estimated."""
    known = [(text, key_of(text)) for text in asked.texts]
    more = sum(counts[key] - tokens_of(text) for text, key in known if key in counts)
    return msgspec.structs.replace(asked, prompt_tokens=asked.prompt_tokens + more) if more else asked


def read_counts(file: Path) -> Counts:
    """Raises ConfigError."""
    try:
        return _decode(file.read_bytes())
    except OSError as exc:
        raise ConfigError([f"--token-counts {file}: {exc.strerror}"]) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError([f"--token-counts {file}: must be a JSON object of whole numbers: {exc}"]) from exc
