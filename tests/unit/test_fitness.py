"""Whether a provider can take a request, from its body on; `test_routing.py` has each reason by itself."""

import json
from typing import Any

import pytest
from support.routes import provider

from shared.fitness import Unfit, unfit, wanted
from shared.tokens import measure

SMALL = provider("small", models={"m": "m"}, capabilities=["tools"], max_tokens=2, context_tokens=500)


@pytest.mark.parametrize(
    ("fields", "providers", "why"),
    [
        ({}, None, None),
        ({}, ["small"], None),
        ({}, ["other"], Unfit.NOT_ASKED_FOR),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "max_tokens": 2}, None, None),
        ({"n": 2}, None, Unfit.CAPABILITY),
        ({"max_tokens": 3}, None, Unfit.MAX_TOKENS),
        ({"max_completion_tokens": 10**400}, None, Unfit.CONTEXT),
        ({"messages": [{"role": "user", "content": "word " * 1000}]}, None, Unfit.CONTEXT),
    ],
)
def test_from_a_body(fields: dict[str, Any], providers: list[str] | None, why: Unfit | None) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Say 1."}], **fields}).encode()
    wants = wanted(body, measure(body), providers)
    assert unfit(SMALL, "m", wants) == why
    assert unfit(SMALL, "other", wants) in {Unfit.MODEL, Unfit.NOT_ASKED_FOR}
