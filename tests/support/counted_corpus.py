"""The demo's requests with their prompts' tokens by a real tokenizer: OpenAI's o200k_base, as tiktoken 0.14 counts them.

The counts are of the first 600 prompts of Python 3.11's library; other Pythons have most of them, too.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli import corpus
from workers.simulator.counts import key_of

FILE = Path(__file__).parents[1] / "golden" / "corpus-o200k.json"


def counted_requests(number: int) -> list[tuple[dict[str, Any], int]]:
    """Lines of a batch, and the tokens of each one's prompt. Skips the test on a Python that has too few of these prompts."""
    counts: dict[str, int] = json.loads(FILE.read_bytes())
    found = []
    for line in corpus.requests(2000, "gpt-4o-mini"):
        tokens = counts.get(key_of(line["body"]["messages"][0]["content"]))
        if tokens is not None:
            found.append((line, tokens))
        if len(found) == number:
            return found
    pytest.skip(f"this Python's library has only {len(found)} of the prompts that were counted")
