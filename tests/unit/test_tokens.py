"""Estimates of tokens against counts that are known, and what answers teach."""

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tokens import (
    DEFAULT_ANSWER_TOKENS,
    IMAGE_TOKENS,
    LOW_DETAIL_TOKENS,
    PER_CHAT,
    PER_MESSAGE,
    Learned,
    Lesson,
    Measured,
    expect,
    json_tokens,
    measure,
    text_tokens,
    together,
)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def chat(content: Any, **fields: Any) -> Measured:
    return measure(body(messages=[{"role": "user", "content": content}], **fields))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, my name is GPT-4o. I'm a new type of language model, it's nice to meet you!", 24),
        (
            "Hallo, mein Name is GPT-4o. Ich bin ein neues KI-Sprachmodell. Es ist schön, dich kennenzulernen.",
            29,
        ),
        ("你好，我的名字是GPT-4o。我是一种新型的语言模型，很高兴见到你!", 24),  # noqa: RUF001
        ("안녕하세요, 제 이름은 GPT-4o입니다. 저는 새로운 유형의 언어 모델입니다, 만나서 반갑습니다!", 27),
        ("Привет, меня зовут GPT-4o. Я — новая языковая модель, приятно познакомиться!", 23),
        ("नमस्ते, मेरा नाम जीपीटी-4o है। मैं एक नए प्रकार का भाषा मॉडल हूं। आपसे मिलकर अच्छा लगा!", 31),
        ("مرحبًا، اسمي جي بي تي-4o. أنا نوع جديد من نموذج اللغة، سررت بلقائك!", 26),
    ],
)
def test_a_sentence_in_seven_scripts_against_published_counts(text: str, tokens: int) -> None:
    """OpenAI's own, of gpt-4o's tokenizer; a sentence is short, so this is coarse."""
    assert text_tokens(text) == pytest.approx(tokens, rel=0.5)


def test_what_characters_over_four_gets_wrong() -> None:
    assert text_tokens("1234567890" * 40) > 200, "digits"
    assert text_tokens("的" * 400) > 300, "Chinese"
    assert text_tokens('{"a": [1, 2, {"b": null}]}' * 10) > 100, "JSON"
    assert text_tokens("") == 0


@given(st.text(), st.text())
def test_a_text_takes_about_what_its_parts_take(one: str, other: str) -> None:
    whole, parts = text_tokens(one + other), text_tokens(one) + text_tokens(other)
    assert parts - 1 <= whole <= parts
    assert text_tokens(one) <= 2 * len(one)
    assert bool(text_tokens(one)) == bool(one)


def test_messages_have_an_overhead_and_nothing_else_is_lost() -> None:
    text = "How are you?"
    assert chat(text).input_tokens == text_tokens(text) + PER_MESSAGE + PER_CHAT
    two = measure(body(messages=[{"role": "system", "content": text}, {"role": "user", "content": text}]))
    assert two.input_tokens == 2 * (text_tokens(text) + PER_MESSAGE) + PER_CHAT
    parts = [{"type": "text", "text": text}, {"type": "text", "text": text}]
    assert chat(parts).input_tokens == 2 * text_tokens(text) + PER_MESSAGE + PER_CHAT
    call = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    answered = measure(body(messages=[{"role": "assistant", "content": None, "tool_calls": call}]))
    assert answered.input_tokens == json_tokens({"tool_calls": call}) + PER_MESSAGE + PER_CHAT


def test_tools_and_schemas_count_without_their_escapes_and_blanks() -> None:
    tools = [{"type": "function", "function": {"name": "wetter", "description": "Wie ist das Wetter? 天气"}}]
    plain = chat("x")
    for how in (
        {"tools": tools},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": tools}}},
    ):
        extra = chat("x", **how).input_tokens - plain.input_tokens
        assert extra == json_tokens(next(iter(how.values())))
        assert extra > 10


def test_media_count_by_what_they_are() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    none = chat([]).input_tokens
    assert chat([{"type": "image_url", "image_url": {"url": data}}]).input_tokens == none + IMAGE_TOKENS
    low = {"type": "image_url", "image_url": {"url": data, "detail": "low"}}
    assert chat([low]).input_tokens == none + LOW_DETAIL_TOKENS
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    assert chat([sound]).input_tokens == none + LOW_DETAIL_TOKENS


def test_how_many_answers_and_how_long() -> None:
    assert chat("x") == Measured(chat("x").input_tokens, 1, None)
    assert chat("x", max_tokens=60).most_output_tokens == 60
    assert chat("x", max_tokens=60, max_completion_tokens=50, n=3).most_output_tokens == 150
    assert measure(body(prompt="x")).most_output_tokens == 16, "the older endpoint's default"
    assert measure(body(prompt=["x", "y"], n=2, max_tokens=5)).most_output_tokens == 20


def test_prompts_of_the_older_endpoint() -> None:
    one = text_tokens("Once upon a time")
    assert measure(body(prompt="Once upon a time")).input_tokens == one
    assert measure(body(prompt=["Once upon a time"] * 3)).input_tokens == 3 * one
    assert measure(body(prompt=[1, 2, 3])) == Measured(3, 1, 16)
    assert measure(body(prompt=[[1, 2, 3], [4]])) == Measured(4, 2, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
names = st.sampled_from(["messages", "prompt", "tools", "response_format", "max_tokens", "n", "best_of"])


@given(st.dictionaries(names, json_values))
def test_nonsense_counts_as_something_and_breaks_nothing(fields: dict[str, Any]) -> None:
    found = measure(body(**fields))
    assert found.input_tokens >= 0
    assert found.answers >= 1
    assert found.max_tokens is None or found.max_tokens > 0


@pytest.mark.parametrize(
    "raw", [b"[]", b"\xff", b'{"messages": "' + b"\\ud800" + b'"}', b'{"tools":' + b"[" * 100_000]
)
def test_what_is_no_object_counts_as_text(raw: bytes) -> None:
    assert measure(raw).input_tokens > 0


@given(st.binary())
def test_no_bytes_break_it(raw: bytes) -> None:
    assert measure(raw).input_tokens >= 0


def test_without_experience_an_answer_is_as_long_as_documented() -> None:
    assert expect(Measured(100)).output_tokens == DEFAULT_ANSWER_TOKENS
    assert expect(Measured(100, 2)).output_tokens == 2 * DEFAULT_ANSWER_TOKENS
    bounded = expect(Measured(100, 2, 60))
    assert (bounded.input_tokens, bounded.output_tokens, bounded.most_output_tokens) == (100, 120, 120)


def test_a_model_is_learnt_from_its_answers() -> None:
    learned = Learned()
    for n in itertools.islice(itertools.cycle([40, 400]), 200):
        learned = learned.after(Lesson(n, 1, round(n * 1.3), 80))
    found = expect(Measured(1000, 1, 500), learned)
    assert found.input_tokens == pytest.approx(1300, rel=0.02)
    assert found.output_tokens == 80
    assert expect(Measured(1000, 1, 50), learned).output_tokens == 50
    for _ in range(300):  # another model under the old name
        learned = learned.after(Lesson(100, 2, 80, 40))
    found = expect(Measured(1000, 3), learned)
    assert found.input_tokens == pytest.approx(800, rel=0.02)
    assert found.output_tokens == 60


def test_several_providers_together() -> None:
    several = [Learned(10, 100, 150, 20), Learned(30, 200, 200, 40), Learned()]
    assert together(several) == Learned(40, 175, 187.5, 35)
    assert together([Learned()]) == together([]) == Learned()
    often = together([Learned(10**6, 100, 100, 10), Learned(50, 100, 100, 30)])
    assert often.output_tokens == 20  # each average rests on the last 50


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 10**6), st.integers(0, 10**5))
    )
)
def test_whatever_is_learnt_an_expectation_is_sane(calls: list[tuple[int, int, int, int]]) -> None:
    learned = Learned()
    for estimated, answers, input_tokens, output_tokens in calls:
        learned = learned.after(Lesson(estimated, answers, input_tokens, output_tokens))
    found = expect(Measured(100, 1, 60), learned)
    assert found.input_tokens >= 0
    assert 0 <= found.output_tokens <= 60
    assert msgspec.json.decode(msgspec.json.encode(learned), type=Learned) == learned


@pytest.mark.parametrize("n", [10**19, 10**30, 10**400])
def test_counts_beyond_measure_stay_within_what_redis_can_reckon_with(n: int) -> None:
    body = '{"messages": [{"role": "user", "content": "hi"}], "n": %d, "max_tokens": %d}' % (n, n)  # noqa: UP031
    found = measure(body.encode())
    assert max(found.answers, found.max_tokens or 0) <= 10**12
