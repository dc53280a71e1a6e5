import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    ProviderBusyError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    RateLimitedError,
    RequestRefusedError,
)
from workers.classify import MAX_RETRY_AFTER_S, classify, redirected, retry_after_s

NOW = 1_750_000_000.0


def error(status: int, code: str | None = None, type_: str = "t", message: str = "m") -> ProviderError:
    body = json.dumps({"error": {"message": message, "type": type_, "param": None, "code": code}}).encode()
    return classify("p", status, {}, body, now=NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefusedError),
        (401, KeyRefusedError),
        (402, KeyRefusedError),
        (403, ModelRefusedError),
        (404, ModelRefusedError),
        (405, RequestRefusedError),
        (408, ProviderBusyError),
        (409, ProviderBusyError),
        (413, RequestRefusedError),
        (422, RequestRefusedError),
        (425, ProviderBusyError),
        (429, RateLimitedError),
        (500, ProviderFailedError),
        (501, ProviderFailedError),
        (502, ProviderFailedError),
        (503, ProviderFailedError),
        (504, ProviderTimeoutError),
        (529, ProviderFailedError),
        (599, ProviderFailedError),
    ],
)
def test_a_status_means_what_the_table_says(status: int, kind: type[ProviderError]) -> None:
    found = error(status)
    assert type(found) is kind
    assert found.http_status == status


@pytest.mark.parametrize(
    "code", ["insufficient_quota", "enforced_spend_limit_reached", "contract_spend_limit_reached"]
)
def test_an_account_with_nothing_left_is_no_rate_limit(code: str) -> None:
    assert type(error(429, code=code)) is KeyRefusedError
    assert type(error(429, type_=code)) is KeyRefusedError


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "m", "code": 404}}', "m", "404"),
        (b'{"object": "error", "message": "m", "code": 400}', "m", "400"),
        (b'{"error": "m"}', "m", None),
        (b'[{"error": {"message": "m", "code": 429}}]', "m", "429"),
        (b'{"error": {"message": "m", "details": {"error_code": "c"}}}', "m", "c"),
        (b"<html>  Bad\n Gateway </html>", "<html> Bad Gateway </html>", None),
        (b"", "no message", None),
        (b"[]", "no message", None),
        (b"null", "no message", None),
        (b"\xff\xfe", "", None),
        (b"[" * 100_000, "", None),
    ],
)
def test_whatever_form_the_error_has(body: bytes, message: str, code: str | None) -> None:
    found = classify("p", 400, {}, body, now=NOW)
    assert message in found.message
    assert found.body["error"]["code"] == code
    assert set(found.body["error"]) == {"message", "type", "param", "code"}


def test_a_key_that_the_provider_echoes_is_not_passed_on() -> None:
    found = error(401, message="Incorrect API key provided: sk-proj-abcdefghijklmnop. Mail a@b.example.")
    assert "abcdefgh" not in found.message + json.dumps(found.body)
    assert "a@b" not in found.message + json.dumps(found.body)


def test_a_message_is_bounded() -> None:
    assert len(error(400, message="x" * 100_000).message) < 2100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "20"}, 0.02),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "99999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Sun, 15 Jun 2025 15:06:50 GMT"}, 10),
        ({"retry-after": "Sun, 15 Jun 2025 15:06:30 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text(max_size=40))
def test_retry_after_never_breaks(raw: str) -> None:
    found = retry_after_s({"retry-after": raw, "retry-after-ms": raw}, NOW)
    assert found is None or 0 < found <= MAX_RETRY_AFTER_S


@given(st.integers(400, 599), st.binary(max_size=60))
def test_no_body_breaks_it(status: int, body: bytes) -> None:
    assert isinstance(classify("p", status, {}, body, now=NOW), ProviderError)


def test_a_redirect_names_the_host_and_is_tried_elsewhere() -> None:
    found = redirected("p", 302, "other.example")
    assert "other.example" in found.message
    assert (found.code, found.retryable, found.elsewhere) == ("redirect_refused", False, True)
