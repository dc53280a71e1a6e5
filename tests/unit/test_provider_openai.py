import json

import pytest

from shared.catalogue import Provider
from shared.errors import ModelRefusedError, ProviderFailedError
from workers.providers import WIRES

WIRE = WIRES["openai"]
PROVIDER = Provider(id="p", endpoint="http://h/v1", models={"fast": "gpt-4o-mini", "same": "same"})
ANSWER = {"id": "x", "choices": [{"index": 0}]}


def test_the_body_goes_out_byte_for_byte_where_the_model_keeps_its_name() -> None:
    body = b'{"model": "same",  "temperature": 1.0, "messages": []}'
    out = WIRE.encode(PROVIDER, "/v1/chat/completions", body, "k")
    assert (out.url, out.body) == ("http://h/v1/chat/completions", body)
    assert out.headers["Authorization"] == "Bearer k"
    assert WIRE.encode(PROVIDER, "/v1/completions", body, None).url == "http://h/v1/completions"
    assert "Authorization" not in WIRE.encode(PROVIDER, "/v1/completions", body, None).headers


def test_an_alias_becomes_the_providers_name_and_nothing_else_changes() -> None:
    body = b'{"seed": 12345678901234567890, "model": "fast", "temperature": 1.0, "x": "\\u00e4"}'
    out = WIRE.encode(PROVIDER, "/v1/chat/completions", body, None).body
    assert out == b'{"seed":12345678901234567890,"model":"gpt-4o-mini","temperature":1.0,"x":"\\u00e4"}'


def test_a_model_it_does_not_serve() -> None:
    with pytest.raises(ModelRefusedError):
        WIRE.encode(PROVIDER, "/v1/chat/completions", b'{"model": "other"}', None)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, (3, 2, 0, 0, True)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 1, "new": 9},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (3, 2, 1, 2, True),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            (3, 2, 0, 0, True),
        ),
        ({"prompt_tokens": 2**63 - 1, "completion_tokens": 2}, (0, 0, 0, 0, False)),
        ({"prompt_tokens": -3, "completion_tokens": 2}, (0, 2, 0, 0, True)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, (0, 0, 0, 0, False)),
        ({"prompt_tokens": 3}, (0, 0, 0, 0, False)),
        ({"prompt_tokens": "three", "completion_tokens": 2}, (0, 0, 0, 0, False)),
        (None, (0, 0, 0, 0, False)),
    ],
)
def test_usage_in_every_form(usage: object, expected: tuple[object, ...]) -> None:
    found = WIRE.decode(PROVIDER, json.dumps({**ANSWER, "usage": usage}).encode())
    counts = (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.reasoning_tokens)
    assert (*counts, found.known) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b'{"choices": 3}',
        b'{"error": {"message": "x"}}',
        b'{"choices": [], "x": "\xff"}',
        b'{"choices": [' + b"[" * 100_000,
    ],
)
def test_a_200_that_is_no_completion(body: bytes) -> None:
    with pytest.raises(ProviderFailedError):
        WIRE.decode(PROVIDER, body)
