"""Rate-limit headers as providers send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.headroom import MAX_REST_S, rest_s

NOW = 1_750_000_000.0  # 2025-06-15T15:06:40Z


def openai(remaining: str, reset: str, what: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": "60",
        f"x-ratelimit-remaining-{what}": remaining,
        f"x-ratelimit-reset-{what}": reset,
    }


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("2m59.56s", 179.56),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("30", 30.0),
        ("9999h", MAX_REST_S),
        ("1750000030", 30.0),
        ("1750000030.5", 30.5),
        ("1750000030250", 30.25),
        ("1750200000", MAX_REST_S),
        ("1749999999", None),
        ("1749999999999", None),
        ("1000000", MAX_REST_S),
        ("0s", None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1s or so", None),
        ("nan", None),
        ("2025-06-15T15:07:40Z", 60.0),
    ],
)
def test_where_nothing_is_left_the_reset_says_how_long(reset: str, expected: float | None) -> None:
    assert rest_s(openai("0", reset), NOW) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("reset", ["2025-06-15T16:07:40Z", "1750003660", "60"])
def test_times_are_by_the_clock_of_who_names_them(reset: str) -> None:
    an_hour_on = {"date": "Sun, 15 Jun 2025 16:06:40 GMT"}
    assert rest_s({**openai("0", reset), **an_hour_on}, NOW) == 60.0


def test_where_something_is_left_nobody_waits() -> None:
    assert rest_s({}, NOW) is None
    assert rest_s(openai("1", "60s"), NOW) is None
    assert rest_s(openai("many", "60s"), NOW) is None


def test_of_several_that_are_used_up_the_longest_counts() -> None:
    both = {**openai("0", "2s"), **openai("0", "8s", "tokens")}
    assert rest_s(both, NOW) == 8.0
    assert rest_s({**openai("0", "2s"), **openai("7", "8s", "tokens")}, NOW) == 2.0


@pytest.mark.parametrize("what", ["requests", "tokens", "input-tokens", "output-tokens"])
def test_anthropic_gives_a_time(what: str) -> None:
    headers = {
        f"anthropic-ratelimit-{what}-limit": "50",
        f"anthropic-ratelimit-{what}-remaining": "0",
        f"anthropic-ratelimit-{what}-reset": "2025-06-15T15:06:52Z",
    }
    assert rest_s(headers, NOW) == 12.0
    assert rest_s({**headers, f"anthropic-ratelimit-{what}-remaining": "3"}, NOW) is None


@given(remaining=st.text(max_size=8), reset=st.text(max_size=30))
def test_nonsense_is_never_an_error(remaining: str, reset: str) -> None:
    for headers in (openai(remaining, reset), openai("0", reset)):
        found = rest_s(headers, NOW)
        assert found is None or 0 < found <= MAX_REST_S
