import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import job_id, new_batch_id, new_file_id
from shared.redact import CARD, EMAIL, IP, KEY, PHONE, SSN, TOKEN, is_secret_name, redact, redact_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.com now", f"write to {EMAIL} now"),
        ("card 4111 1111 1111 1111.", f"card {CARD}."),
        ("card 4111-1111-1111-1111", f"card {CARD}"),
        ("5500005555555559", CARD),
        ("ssn 123-45-6789", f"ssn {SSN}"),
        ("call +1 415 555 2671 or (415) 555-2671", f"call {PHONE} or {PHONE}"),
        ("call 415-555-2671", f"call {PHONE}"),
        ("key sk-proj-AbCdEf0123456789", f"key {KEY}"),
        ("sk-ant-api03-abcdefghijklmnop", KEY),
        ("AIzaSyA0123456789abcdefghijklmnopqrstu", KEY),
        ("gsk_0123456789abcdefghij", KEY),
        ("hf_0123456789abcdefghij", KEY),
        ("AKIAIOSFODNN7EXAMPLE", KEY),
        ("/v1/files/le-0123456789abcdefghijABCDEFGHIJ-_0123456789abc", f"/v1/files/{KEY}"),
        ("ghp_0123456789abcdefghijklmnopqrst", KEY),
        ("Authorization: Bearer abcdef.ghi-jkl", f"Authorization: Bearer {TOKEN}"),
        ("redis://:hunter22@127.0.0.1:6379/0", f"redis://:{KEY}@127.0.0.1:6379/0"),
        ("amqp://user:hunter22@host//", f"amqp://user:{KEY}@host//"),
        ('{"api_key": "abcdefgh"}', f'{{"api_key": "{KEY}"}}'),
        ("password=hunter22", f"password={KEY}"),
    ],
)
def test_what_must_go(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1750000000",
        "1750000000.123456",
        "2026-11-23T08:25:34.123456Z",
        "2026-11-23 08:25:34",
        "duration_s=0.123456789",
        "tokens: 1234567890123",
        "50,000 of 1,000,000 jobs",
        "version 26.9.0",
        "http://127.0.0.1:8080/v1",
        "10.0.0.1",
        "3.14159265358979",
        "550e8400-e29b-41d4-a716-446655440000",
        "total_tokens=123 max_tokens: 4096",
        "shard batch_01a207998b818bbbf37bf73f861788f7/12",
        "sk-learn",
        "the bearer of news",
        "a@b",
    ],
)
def test_what_must_stay(text: str) -> None:
    assert redact(text) == text


@given(st.integers(0, 50_000))
def test_our_own_ids_stay(index: int) -> None:
    for text in (new_batch_id(), new_file_id(), job_id(new_batch_id(), index)):
        assert redact(f"see {text}, {text}/{index}.") == f"see {text}, {text}/{index}."


def test_addresses_go_where_it_is_asked_for() -> None:
    text = "from 192.168.1.10 and ::1 and 2001:db8:0:0:0:0:0:1"
    assert redact(text) == text
    assert redact(text, ip=True) == f"from {IP} and {IP} and {IP}"


SECRETS = st.sampled_from(
    [
        "sk-abcdefgh12345678",
        "jane@mail.example",
        "4111111111111111",
        "123-45-6789",
        "Bearer abcdefgh1234",
        "+1 415 555 2671",
    ]
)


@given(
    st.recursive(
        SECRETS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_no_secret_survives_in_any_nesting(value: object) -> None:
    shown = repr(redact_value(value))
    for secret in ("abcdefgh", "jane@", "4111111111111111", "123-45-6789", "555 2671"):
        assert secret not in shown


@given(st.text(max_size=200))
def test_twice_is_once(text: str) -> None:
    once = redact(text, ip=True)
    assert redact(once, ip=True) == once


def test_fields_named_like_secrets() -> None:
    for name in (
        "api_key",
        "OPENAI_API_KEY",
        "Authorization",
        "x-api-key",
        "password",
        "access_token",
        "token",
        "cookie",
    ):
        assert is_secret_name(name), name
    for name in ("total_tokens", "max_tokens", "tokens", "key", "custom_id", "authors", "prompt_tokens"):
        assert not is_secret_name(name), name
    assert redact_value({"api_key": "x", "n": [{"password": 3}]}) == {
        "api_key": KEY,
        "n": [{"password": KEY}],
    }


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 50_000,
        "a." * 50_000 + "@",
        "a@" * 50_000,
        "+1" + "-1" * 50_000,
        "A" * 100_000,
        "::" * 50_000,
        "://a:" * 20_000 + "@",
    ],
)
def test_no_input_makes_it_slow(text: str) -> None:
    started = time.process_time()
    redact(text, ip=True)
    assert time.process_time() - started < 2.0
