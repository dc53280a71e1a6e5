"""The estimate of tokens against a real tokenizer's counts of the demo's corpus."""

import msgspec
import pytest
from support.counted_corpus import counted_requests

from shared.tokens import PER_CHAT, PER_MESSAGE, measure
from workers.simulator.asked import Asked, read_chat


def test_the_demos_corpus_is_met_within_fifteen_percent() -> None:
    """Against a real tokenizer's counts (support.counted_corpus), and against the simulator's own estimate."""
    counted = counted_requests(500)
    bodies = [msgspec.json.encode(line["body"]) for line, _ in counted]
    ours = sum(measure(each).input_tokens for each in bodies)
    assert ours == pytest.approx(sum(tokens + PER_MESSAGE + PER_CHAT for _, tokens in counted), rel=0.15)
    asked = [read_chat(each) for each in bodies]
    assert ours == pytest.approx(
        sum(each.prompt_tokens for each in asked if isinstance(each, Asked)), rel=0.15
    )
