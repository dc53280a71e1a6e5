import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion

from shared.errors import ConfigError
from workers.simulator import answers, texts
from workers.simulator.asked import Asked, read_chat, read_completion
from workers.simulator.behaviour import Behaviour
from workers.simulator.counts import counted, key_of, read_counts
from workers.simulator.decide import Decision, Kind
from workers.simulator.limits import Bucket, Limits, duration
from workers.simulator.refusals import Refusal

USER = {"role": "user", "content": "hi"}
DOCUMENTED = (
    'Summarise this function: def dumps(obj):\n    """Serialize obj to a JSON string.\n\n    More."""'
)


def chat(**body: Any) -> Asked | Refusal:
    return read_chat(json.dumps({"model": "m", "messages": [USER], **body}).encode())


def completion(**body: Any) -> Asked | Refusal:
    return read_completion(json.dumps({"model": "m", **body}).encode())


def asked(found: Asked | Refusal) -> Asked:
    assert isinstance(found, Asked)
    return found


def error(found: Asked | Refusal) -> dict[str, Any]:
    assert isinstance(found, Refusal)
    assert found.status == 400
    shown = json.loads(found.body)["error"]
    assert isinstance(shown, dict)
    return shown


def test_the_last_user_message_is_the_prompt() -> None:
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "two"},
    ]
    messages = [
        {"role": "system", "content": "be nice"},
        USER,
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "prefill"},
    ]
    found = asked(chat(messages=messages, temperature=0.5))
    assert found.prompt == "one\ntwo"
    assert found.prompt_tokens > asked(chat()).prompt_tokens + 85


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 1000}, "n"),
        ({"stream": True}, "stream"),
    ],
)
def test_a_chat_that_will_not_do_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    shown = error(chat(**body))
    assert shown["type"] == "invalid_request_error"
    assert (shown["param"] or "messages[0]").replace("[...]", "[0]").startswith(param)
    assert shown["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"model":"\xff"}', b"[]", b"null", b"[" * 100_000])
def test_bodies_that_are_no_request_are_refused(body: bytes) -> None:
    assert error(read_chat(body))["message"]
    assert error(read_completion(body))["message"]


@given(st.binary(max_size=200))
def test_no_body_is_too_odd(body: bytes) -> None:
    assert isinstance(read_chat(body), (Asked, Refusal))
    assert isinstance(read_completion(body), (Asked, Refusal))


def test_max_tokens_by_either_name() -> None:
    assert asked(chat()).max_tokens is None
    assert asked(chat(max_tokens=5)).max_tokens == 5
    assert asked(chat(max_tokens=5, max_completion_tokens=7)).max_tokens == 7
    assert asked(completion(prompt="x")).max_tokens == 16


def test_prompts_of_every_form() -> None:
    assert asked(completion(prompt="abcd efgh")).texts == ("abcd efgh",)
    assert asked(completion(prompt=["a", "b"], n=2)).choices == 4
    assert asked(completion(prompt=[1, 2, 3])).prompt_tokens == 3
    assert asked(completion(prompt=[[1, 2], [3]])).texts == ("", "")
    assert error(completion(prompt=["a", 1]))["param"] == "prompt"
    assert error(completion(prompt=[]))["param"] == "prompt"


def test_answers_are_what_the_sdk_expects() -> None:
    decision = Decision(Kind.ANSWER, completion_tokens=12, cut=True, key="0123456789abcdef" * 4)
    body = answers.chat(asked(chat(n=2)), decision, 1_750_000_000.5)
    found = ChatCompletion.model_validate_json(body, strict=True)
    assert (found.id[:9], found.object, found.created) == ("chatcmpl-", "chat.completion", 1_750_000_000)
    assert (found.model, found.system_fingerprint) == ("m", "simulated")
    assert [(c.index, c.finish_reason, c.message.role) for c in found.choices] == [
        (0, "length", "assistant"),
        (1, "length", "assistant"),
    ]
    assert found.usage is not None
    assert found.usage.completion_tokens == 24
    assert found.usage.total_tokens == found.usage.prompt_tokens + 24
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.completion_tokens_details is not None
    assert all(len((c.message.content or "").split()) == 12 for c in found.choices)
    text = Completion.model_validate_json(
        answers.completion(asked(completion(prompt=["a", "b"])), decision, 1.0), strict=True
    )
    assert (text.object, len(text.choices), text.choices[1].index) == ("text_completion", 2, 1)


def test_a_malformed_answer_is_no_json() -> None:
    body = answers.chat(asked(chat()), Decision(Kind.MALFORMED, completion_tokens=3, key="0" * 64), 1.0)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(answers.malformed(body))


def test_a_summary_names_the_function_and_repeats_its_docstring() -> None:
    text = texts.answer(DOCUMENTED, 30, 0, cut=False)
    assert text.startswith("[simulated] `dumps`: Serialize obj to a JSON string. ")
    assert "`f` takes what it is given" in texts.answer("Summarize: def f(x): return x", 40, 0, cut=False)
    assert texts.answer("What is up?", 8, 0, cut=True).startswith(
        "[simulated] A made-up answer to “What is up"
    )


@given(st.text(max_size=300), st.integers(0, 400), st.integers(0, 9), st.booleans())
def test_texts_have_the_length_asked_for(prompt: str, words: int, variant: int, cut: bool) -> None:
    text = texts.answer(prompt, words, variant, cut=cut)
    assert len(text.split()) == words
    assert text == texts.answer(prompt, words, variant, cut=cut)
    assert cut or not words or text.endswith(".")


def test_a_bucket_refills_evenly() -> None:
    bucket = Bucket(60, 0.0)
    for _ in range(60):
        assert bucket.wait_s(1, 0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait_s(1, 0.0) == 1.0
    assert bucket.wait_s(1, 0.25) == 0.75
    assert bucket.wait_s(1, 1.0) == 0
    assert bucket.level(1000.0) == 60


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), max_size=60))
def test_a_bucket_never_grants_more_than_its_limit(per_minute: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, granted = Bucket(per_minute, 0.0), 0.0, 0.0
    for passed_s, amount in steps:
        now += passed_s
        wait_s = bucket.wait_s(amount, now)
        assert wait_s >= 0
        if wait_s == 0:
            bucket.take(amount, now)
            granted += amount
        elif amount <= per_minute:
            assert bucket.wait_s(amount, now + wait_s) < 1e-9
    assert granted <= per_minute * (1 + now / 60) + 1e-3


def test_limits_take_from_all_or_from_none() -> None:
    limits = Limits(Behaviour(rpm=2, tpm=100, concurrency=3), 0.0)
    assert limits.refusal("m", 60, 0, 0.0) is None
    over = limits.refusal("m", 60, 0, 0.0)
    assert over is not None
    assert (over.status, dict(over.headers)[b"retry-after-ms"]) == (429, b"12000")
    assert b"tokens per min (TPM): Limit 100, Requested 60" in over.body
    assert dict(limits.headers(0.0))[b"x-ratelimit-remaining-requests"] == b"1"
    too_many = limits.refusal("m", 1, 3, 0.0)
    assert too_many is not None
    assert b"concurrent" in too_many.body
    never = limits.refusal("m", 101, 0, 0.0)
    assert never is not None
    assert never.headers == ()
    assert b"Request too large" in never.body
    assert Limits.of(Behaviour(), 0.0) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (365.25, "6m5.25s")],
)
def test_durations_are_written_as_openai_does(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_prompts_that_were_counted_beforehand_have_the_tokens_that_they_had(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    file.write_text(json.dumps({key_of("hi"): 1000, key_of("ho"): 50}))
    counts = read_counts(file)
    one = asked(chat())
    assert counted(one, counts).prompt_tokens == one.prompt_tokens + 999
    told = asked(chat(messages=[{"role": "system", "content": "ho"}, {"role": "user", "content": "unknown"}]))
    assert counted(told, counts) == told
    assert counted(asked(completion(prompt=["hi", "ho", "unknown"])), counts).prompt_tokens == 1000 + 50 + 2


@pytest.mark.parametrize("text", ["", "[]", '{"a": "b"}', "\xff"])
def test_counts_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "counts.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="--token-counts"):
        read_counts(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_counts(tmp_path / "none")
