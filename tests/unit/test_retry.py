import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalogue import Retry
from shared.errors import (
    KeyRefusedError,
    ProviderBusyError,
    ProviderFailedError,
    RateLimitedError,
    RequestRefusedError,
)
from shared.gate import NOBODY, Block
from shared.jobs import History, Try
from shared.reasons import Reason
from workers.retry import (
    AFTER_OTHERS_S,
    OUTAGE_PAUSE_S,
    backoff_s,
    decide,
    is_last,
    outage_pause_s,
    park,
    waits_briefly,
)

RETRY = Retry()


def test_the_schedule() -> None:
    assert [backoff_s(RETRY, n) for n in range(1, 10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


@pytest.mark.parametrize(("attempts", "delay_s"), [(0, 0.1), (1, 0.2), (2, 0.4)])
def test_a_failure_is_retried_by_the_schedule(attempts: int, delay_s: float) -> None:
    decision = decide(ProviderFailedError("x"), History(attempts=attempts), RETRY, spread=0.5)
    assert (decision.kind, decision.delay_s, decision.charged) == ("retry", delay_s, True)


@given(st.builds(History, attempts=st.integers(0, 6), faults=st.integers(0, 6)), st.booleans())
def test_a_failure_is_in_doubt_only_where_it_was_known_to_be_the_last(
    history: History, charged: bool
) -> None:
    error = ProviderFailedError("x")
    error.charged = charged
    if decide(error, history, RETRY, spread=0.5).kind == "doubt":
        assert is_last(history, RETRY)


def test_after_four_attempts_a_failure_is_in_doubt() -> None:
    decision = decide(ProviderFailedError("x"), History(attempts=3), RETRY, spread=0.5)
    assert decision.kind == "doubt"
    assert decision.delay_s > 0
    assert decide(ProviderBusyError("x"), History(attempts=3), RETRY, spread=0.5).kind == "fail"


@pytest.mark.parametrize("error", [RequestRefusedError("x"), KeyRefusedError("x")])
def test_a_final_error_is_never_retried(error: RequestRefusedError | KeyRefusedError) -> None:
    assert decide(error, History(), RETRY, spread=0.5).kind == "fail"


def test_a_429_is_not_charged_and_waits_as_long_as_it_was_told() -> None:
    short = decide(RateLimitedError("x", retry_after_s=2.5), History(attempts=3), RETRY, spread=0.5)
    assert (short.kind, short.delay_s, short.charged) == ("retry", 2.5, False)
    long = decide(RateLimitedError("x", retry_after_s=90), History(attempts=3), RETRY, spread=0.5)
    assert (long.kind, long.delay_s, long.charged) == ("park", 90, False)


def test_a_retry_after_is_for_the_provider_to_rest_not_for_the_job_to_wait_for_it() -> None:
    for retry_after_s in (0.01, 3.0, 86_400.0):
        error = ProviderFailedError("x", retry_after_s=retry_after_s)
        assert decide(error, History(), RETRY, spread=0.5).delay_s == 0.1


def test_who_is_limited_for_long_waits_for_whoever_serves_first() -> None:
    assert waits_briefly(RateLimitedError("x", retry_after_s=9), History(), RETRY)
    assert not waits_briefly(RateLimitedError("x", retry_after_s=90), History(), RETRY)
    assert not waits_briefly(RateLimitedError("x"), History(parked=9), RETRY)
    assert not waits_briefly(ProviderFailedError("x"), History(), RETRY)


def tried(*statuses: int) -> History:
    tries = tuple(Try("p", status, "", 0.1, charged=False, at=1.0) for status in statuses)
    return History(tries=tries, faults=sum(call.fault for call in tries))


def test_a_job_that_fails_as_a_probe_again_and_again_is_looked_at() -> None:
    error = ProviderFailedError("x")
    error.charged = False
    assert decide(error, tried(503, 429, 0, 429), RETRY, spread=0.5).kind != "doubt"
    assert decide(error, tried(503, 429, 0, 504), RETRY, spread=0.5).kind == "doubt"
    assert decide(error, tried(*[401] * 9), RETRY, spread=0.5).kind != "doubt"


def test_who_has_failed_before_lets_the_others_probe() -> None:
    blocks = [Block("p", Reason.BREAKER_OPEN, 1010.0)]
    fresh, failed = (park(blocks, h, now=1000.0, spread=0.5, alone=True) for h in (History(), tried(503)))
    assert failed.delay_s == fresh.delay_s + AFTER_OTHERS_S


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_minute_and_are_spread(times: int, spread: float) -> None:
    pause_s = outage_pause_s(RETRY, times, spread)
    whole = min(0.5 * 2.0 ** min(times, 10), OUTAGE_PAUSE_S)
    assert whole / 2 <= pause_s <= whole


def test_what_no_provider_serves_waits_for_the_file_to_change() -> None:
    nobody = park([Block("", Reason.NO_PROVIDER, 0.0, "m")], History(), now=1000.0, spread=0.0, alone=True)
    assert (nobody.wait_for, nobody.delay_s) == ((NOBODY,), OUTAGE_PAUSE_S)
    assert nobody.serves_s == 0.0
    away = park([Block("", Reason.STORE_AWAY, 1001.0)], History(), now=1000.0, spread=0.0, alone=True)
    assert away.wait_for == ()


BLOCKS = st.builds(
    Block,
    st.sampled_from("abc"),
    st.sampled_from(list(Reason)),
    st.one_of(st.just(0.0), st.floats(1000.5, 9000.0)),
)


@given(st.lists(BLOCKS, min_size=1, max_size=5), st.floats(0, 1, exclude_max=True))
def test_the_time_told_is_the_earliest_at_which_anything_could_serve(
    blocks: list[Block], spread: float
) -> None:
    decision = park(blocks, History(), now=1000.0, spread=spread, alone=True)
    by_itself = [b for b in blocks if not b.reason.takes_a_person] or blocks
    times = [1.0 if b.reason is Reason.BREAKER_PROBING else b.until - 1000.0 for b in by_itself]
    known = [time_s for time_s in times if time_s > 0]
    assert decision.serves_s == pytest.approx(min(known, default=0.0))
    assert decision.reason in {b.reason for b in by_itself}


def test_a_long_cool_down_is_asked_about_each_minute_and_told_in_full() -> None:
    decision = park([Block("a", Reason.RATE_LIMITED, 4540.0)], History(), now=1000.0, spread=0.0, alone=True)
    assert (decision.delay_s, decision.serves_s) == (OUTAGE_PAUSE_S, 3540.0)


def test_another_that_is_probed_is_the_first_to_serve() -> None:
    blocks = [Block("a", Reason.RATE_LIMITED, 4540.0), Block("b", Reason.BREAKER_PROBING, 0.0)]
    decision = park(blocks, History(), now=1000.0, spread=0.0, alone=True)
    assert (decision.reason, decision.delay_s, decision.wait_for) == (
        Reason.BREAKER_PROBING,
        1.0,
        ("b", "a"),
    )
