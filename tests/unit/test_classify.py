import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    NotServedError,
    ProviderBusyError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    RateLimitedError,
    RequestRefusedError,
)
from workers.classify import (
    MAX_MESSAGE_CHARS,
    MAX_RETRY_AFTER_S,
    classify,
    redirected,
    request_id,
    retry_after_s,
)

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
        (404, NotServedError),
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


@pytest.mark.parametrize("status", [200, 204, 304, 600])
def test_an_answer_that_is_no_refusal_is_a_failure(status: int) -> None:
    assert type(error(status)) is ProviderFailedError


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",
        "billing_hard_limit_reached",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "organization_spend_limit_reached",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 402, 429])
def test_an_account_with_nothing_left_is_no_rate_limit(status: int, code: str) -> None:
    assert type(error(status, code=code)) is KeyRefusedError
    assert type(error(status, type_=code)) is KeyRefusedError
    assert type(error(status, code="ramp_limit_exceeded")) is type(error(status))


def test_a_model_that_is_not_there_is_no_fault_of_the_request() -> None:
    assert type(error(400, code="model_not_found")) is ModelRefusedError
    assert type(error(400, code="context_length_exceeded")) is RequestRefusedError


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "The model `x` does not exist", "type": "t", "code": "model_not_found"}},
        {"error": {"message": "gone", "type": "Model_Not_Found"}},
        {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-x"}},
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        [
            {
                "error": {
                    "code": 404,
                    "message": "models/x is not found for API version v1",
                    "status": "NOT_FOUND",
                }
            }
        ],
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this does not exist."}},
    ],
)
def test_a_404_about_the_model_is_held_against_it(body: object) -> None:
    assert type(classify("p", 404, {}, json.dumps(body).encode(), now=NOW)) is ModelRefusedError


@pytest.mark.parametrize(
    "body",
    [
        "<html>no model here</html>",
        '{"detail": "Not Found"}',
        '{"error": {"message": "Unknown path /v2", "type": "not_found_error"}}',
        '{"error": {"message": "a remodelled site", "code": "NOT_FOUND"}}',
        (
            '{"error": {"message": "This is a chat model and not supported in the v1/completions endpoint.",'
            ' "type": "invalid_request_error", "code": null}}'
        ),
        "",
    ],
)
def test_any_other_404_is_this_jobs_alone(body: str) -> None:
    found = classify("p", 404, {}, body.encode(), now=NOW)
    assert (type(found), found.code) in [
        (NotServedError, code) for code in ("not_served", "not_found_error", "NOT_FOUND")
    ]
    assert (found.elsewhere, found.retryable, found.charged, found.counts_against_breaker) == (
        True,
        False,
        False,
        False,
    )


def test_a_status_that_is_a_number_is_no_name_for_the_error() -> None:
    body = b'{"message": "no such model", "status": 404, "type": "NotFoundError"}'
    assert type(classify("p", 404, {}, body, now=NOW)) is ModelRefusedError
    assert (
        type(classify("p", 404, {}, body.replace(b', "type": "NotFoundError"', b""), now=NOW))
        is NotServedError
    )


def test_a_code_that_repeats_the_status_is_no_name() -> None:
    assert error(429, code="429").code == "rate_limited"
    assert error(429, code="tokens").code == "tokens"


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
        (b'{"error": null, "message": "m"}', "m", None),
        (b'{"error": {"message": {"deep": 1}, "code": true, "type": []}}', "no message", None),
        (b'{"message": "m", "type": "invalid_request_error", "code": "c"}', "m", "c"),
        (b'"m"', "m", None),
        (b"17", "no message", None),
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


def test_nor_is_one_that_hides_in_a_name_or_is_cut_in_two() -> None:
    found = error(401, code="sk-proj-abcdefghijklmnop", type_="a@b.example")
    assert "abcdefgh" not in f"{found.code}{found.body}"
    assert "a@b" not in f"{found.code}{found.body}"
    found = error(401, message="x" * (MAX_MESSAGE_CHARS - 9) + " sk-proj-abcdefghijklmnop")
    assert "sk-" not in found.message


SECRET = "Zq9/plain'secret\\key77"  # of no vendor's form
PROMPT = "my diary: dear Jane"


def echoed(status: int = 401, *, cut: int = 0, **said: str) -> ProviderError:
    """A provider that says again what it was sent; `cut`: where in its message the key stands."""
    message = f"{'x' * cut} The key {SECRET} is wrong; the prompt was {PROMPT}"
    body = json.dumps({"error": {"message": message, **said}}).replace("/", "\\/").encode()
    return classify("p", status, {"x-request-id": SECRET}, body, now=NOW, key=SECRET)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize(
    "code", [f"bad {SECRET} {PROMPT}", SECRET, PROMPT, "a" * 65, "", "with\nnewline", "\u0661"]
)
def test_others_are_told_a_code_and_our_own_words(status: int, code: str) -> None:
    found = echoed(status, code=code, type=code, param=code)
    assert found.code == type(found).default_code
    assert (str(found), found.brief, found.args) == ((f"p answered {status}.",) * 2 + ((found.brief,),))
    assert PROMPT in found.message
    assert found.body["error"]["code"] in {found.code, None}
    for shown in (found.message, found.body["error"]["message"], *map(str, found.body["error"].values())):
        assert SECRET not in shown
    assert "Zq9" not in f"{found.message}{found.body}{found.request_id}{found!r}"


@pytest.mark.parametrize("code", ["model_not_found", "NotFoundError", "a.b:c-d_1", "z" * 64])
def test_a_code_that_is_a_name_is_told(code: str) -> None:
    assert echoed(400, code=code).code == code


@given(st.integers(MAX_MESSAGE_CHARS - 60, MAX_MESSAGE_CHARS + 10), st.integers(0, 30))
def test_no_part_of_a_key_survives_at_a_cut(cut: int, more: int) -> None:
    assert "Zq9" not in echoed(cut=cut).message + echoed(cut=2 * cut + more).message


@pytest.mark.parametrize("head", ["", "x" * 490])
def test_a_key_in_a_page_is_not_told(head: str) -> None:
    found = classify("p", 502, {}, f"<html>{head}{SECRET}".encode(), now=NOW, key=SECRET)
    assert "Zq9" not in found.message


def test_a_key_that_is_hardly_one_is_no_reason_to_garble_what_is_said() -> None:
    body = b'{"error": "The model none is not here"}'
    assert "model none is" in classify("p", 400, {}, body, now=NOW, key="none").message


def test_everything_kept_is_bounded() -> None:
    body = json.dumps({"error": dict.fromkeys(("message", "type", "param", "code"), "x" * 100_000)})
    found = classify("p", 400, {"x-request-id": "r" * 1000}, body.encode(), now=NOW)
    assert len(found.message) < 2100
    assert len(json.dumps(found.body)) < 2800
    assert len(found.request_id or "") == 200
    assert found.code == "request_refused"


def test_the_request_id_is_found_and_harmless() -> None:
    assert request_id({"x-request-id": "req_1"}) == "req_1"
    assert request_id({"request-id": "req_2"}) == "req_2"
    assert request_id({"x-request-id": "a\x1b[31m"}) is None
    assert request_id({}) is None


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
        ({"retry-after": "Sun, 15 Jun 2025 15:06:50 -0000"}, 10),
        ({"retry-after": "Sun, 15 Jun 2099 15:06:50 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Sun, 15 Jun 2025 16:06:50 GMT", "date": "Sun, 15 Jun 2025 16:06:45 GMT"}, 5),
        ({"retry-after": "Sun, 15 Jun 2025 15:06:50 GMT", "date": "yesterday"}, 10),
        ({"retry-after": "1750000010"}, 10),
        ({"retry-after": "1750000010000"}, 10),
        ({"retry-after-ms": "1750000010000"}, 10),
        ({"retry-after": "1749999990"}, None),
        ({"retry-after-ms": "0", "retry-after": "5"}, 5),
        ({"retry-after-ms": "nan", "x-ms-retry-after-ms": "250"}, 0.25),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text(max_size=40))
def test_retry_after_never_breaks(raw: str) -> None:
    found = retry_after_s({"retry-after": raw, "retry-after-ms": raw}, NOW)
    assert found is None or 0 < found <= MAX_RETRY_AFTER_S


def test_what_the_rate_limit_leaves_counts_where_no_time_to_wait_is_given() -> None:
    nothing = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    assert classify("p", 503, nothing, b"", now=NOW).rest_s == 360.0
    asked = classify("p", 429, {**nothing, "retry-after": "2"}, b"", now=NOW)
    assert (asked.retry_after_s, asked.rest_s) == (2.0, None)


@given(st.integers(400, 599), st.binary(max_size=60))
def test_no_body_breaks_it(status: int, body: bytes) -> None:
    assert isinstance(classify("p", status, {}, body, now=NOW), ProviderError)


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://user:hunter22@other.example/v1?key=hunter22", "to other.example,"),
        ("/v2/chat", "to another path,"),
        ("http://[", "to another path,"),
        (None, "to nowhere,"),
    ],
)
def test_a_redirect_names_the_host_alone_and_is_tried_elsewhere(location: str | None, where: str) -> None:
    found = redirected("p", 302, location)
    assert where in found.message
    assert str(found).startswith("p answered 302, a redirect, which is never followed")
    assert "hunter" not in found.message
    assert (found.code, found.retryable, found.elsewhere) == ("redirect_refused", False, True)
