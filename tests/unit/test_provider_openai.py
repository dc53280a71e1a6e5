import json

import pytest

from shared.catalogue import Provider
from shared.errors import ModelRefusedError, ProviderFailedError, RequestRefusedError
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


def test_the_model_asked_for_is_told_and_no_key_is_shown() -> None:
    out = WIRE.encode(PROVIDER, "/v1/completions", b'{"model": "fast"}', "very-secret")
    assert out.model == "gpt-4o-mini"
    assert "very-secret" not in repr(out)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model": 3}',
        b'{"model": "same"',
        b'{"model": "same", "stream": true}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_cannot_be_sent(body: bytes) -> None:
    with pytest.raises(RequestRefusedError):
        WIRE.encode(PROVIDER, "/v1/chat/completions", body, None)


def test_stream_false_is_none() -> None:
    body = b'{"model": "same", "stream": false}'
    assert WIRE.encode(PROVIDER, "/v1/completions", body, None).body == body


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
        ([], (0, 0, 0, 0, False)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": -9},
            },
            (3, 2, 3, 0, True),
        ),
    ],
)
def test_usage_in_every_form(usage: object, expected: tuple[object, ...]) -> None:
    found = WIRE.decode(PROVIDER, json.dumps({**ANSWER, "usage": usage}).encode(), None)
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
        WIRE.decode(PROVIDER, body, None)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Incorrect API key provided: sk-abcdefgh12345678", "code": 401}},
        {"error": "Incorrect API key provided: sk-abcdefgh12345678"},
        {"choices": [], "error": {"message": "upstream: sk-abcdefgh12345678"}},
        {"choices": [], "usage": 7, "error": {"message": "upstream: sk-abcdefgh12345678"}},
        {"object": "error", "message": "upstream: sk-abcdefgh12345678", "code": 500},
    ],
)
def test_an_error_within_a_200(body: object) -> None:
    with pytest.raises(ProviderFailedError, match="200 with an error") as caught:
        WIRE.decode(PROVIDER, json.dumps(body).encode(), None)
    assert caught.value.message.startswith("p answered 200 with an error: ")
    assert "abcdefgh" not in caught.value.message
    assert caught.value.code == "error_in_answer"
    assert str(caught.value) == "p answered 200 with an error."


def test_an_error_in_a_200_does_not_tell_the_key_that_it_echoes() -> None:
    body = json.dumps({"choices": [], "error": {"message": "not with plain-key-7"}}).encode()
    with pytest.raises(ProviderFailedError) as caught:
        WIRE.decode(PROVIDER, body, "plain-key-7")
    assert caught.value.message.endswith("not with [API_KEY_REDACTED]")


def test_a_null_error_is_none() -> None:
    body = json.dumps({**ANSWER, "error": None, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert WIRE.decode(PROVIDER, body.encode(), None).known
