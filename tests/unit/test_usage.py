"""What a call takes of the limits, and what becomes of a job that they keep waiting."""

from decimal import Decimal

import pytest

from shared.catalogue import Breaker, Ceilings, Limits, Provider
from shared.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    ProviderUnreachableError,
    RateLimitedError,
    RequestRefusedError,
)
from shared.gate import Block, Candidate
from shared.jobs import History
from shared.limits import Limit
from shared.permits import Permit, ending_of, report_of
from shared.reasons import Reason, in_words
from shared.tokens import WINDOW, Learned, Lesson, measure
from workers.provider import TokenUsage
from workers.retry import OUTAGE_PAUSE_S, park
from workers.usage import SAMPLED, lesson_of, limits_of, used_by

TPM, MONEY = Limit("p:a", "tpm", 100, 6000), Limit("b:1", "money", 500, 1000)
KNOWN = TokenUsage(prompt_tokens=3, completion_tokens=4, known=True)


def permit(*own: Limit, common: tuple[Limit, ...] | None = None) -> Permit:
    return Permit("1", 0, Candidate("a", "a", "", "m", "", own or None), 0, limits=common)


def test_no_request_is_too_large_to_be_reckoned_with() -> None:
    assert limits_of(Provider(id="a", endpoint="http://a", limits=Limits(tpm=6000)), "m", 10**400) == (
        Limit("p:a", "tpm", 6000, 6000),
    )


def test_a_provider_without_limits_has_none() -> None:
    assert limits_of(Provider(id="a", endpoint="http://a"), "m", 10) is None


def test_each_limit_of_the_file_is_a_row() -> None:
    provider = Provider(id="a", endpoint="http://a", limits=Limits(rpm=60, tpm=9000, concurrency=4))
    assert limits_of(provider, "m", 250) == (
        Limit("p:a", "rpm", 1, 60),
        Limit("p:a", "tpm", 250, 9000),
        Limit("p:a", "concurrency", 1, 4),
    )


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ("small-1", (Limit("p:a|small-1", "rpm", 1, 10), Limit("p:a|small-1", "concurrency", 1, 2))),
        ("small", (Limit("p:a|small-1", "rpm", 1, 10), Limit("p:a|small-1", "concurrency", 1, 2))),
        ("quick", (Limit("p:a|quick", "tpm", 250, 500),)),
        ("large", ()),
    ],
)
def test_a_model_has_the_providers_limits_and_its_own_by_either_name(
    asked: str, more: tuple[Limit, ...]
) -> None:
    models = {"small": "small-1", "quick": "small-1", "*": "*"}
    own = {"small-1": Ceilings(rpm=10, concurrency=2), "quick": Ceilings(tpm=500)}
    provider = Provider(id="a", endpoint="http://a", models=models, limits=Limits(rpm=60, models=own))
    assert limits_of(provider, asked, 250) == (Limit("p:a", "rpm", 1, 60), *more)


def test_what_was_used_is_told_for_the_limits_there_are() -> None:
    def cost() -> Decimal:
        return Decimal("0.000002")

    assert used_by(permit(), KNOWN, cost) is None
    assert used_by(permit(TPM), KNOWN, cost) == {"tpm": 7.0}
    assert used_by(permit(TPM, common=(MONEY,)), KNOWN, cost) == {"tpm": 7.0, "money": 2000.0}
    assert used_by(permit(TPM, MONEY), TokenUsage(), lambda: None) is None  # unknown: as it was estimated


BODY = b'{"model": "m", "n": 2, "messages": [{"role": "user", "content": "How are you?"}]}'


def test_the_first_answers_of_a_model_teach_and_then_a_sample() -> None:
    def teaching(calls: int) -> int:
        permits = [Permit(f"w@host:{n}", 0, permit().candidate, 0) for n in range(1000)]
        return sum(lesson_of(each, BODY, KNOWN, Learned(calls)) is not None for each in permits)

    assert lesson_of(permit(), BODY, KNOWN, Learned()) == Lesson(measure(BODY).input_tokens, 2, 3, 4)
    assert teaching(WINDOW - 1) == 1000
    assert teaching(WINDOW) == pytest.approx(1000 / SAMPLED, rel=0.2)


@pytest.mark.parametrize("usage", [TokenUsage(), TokenUsage(completion_tokens=4, known=True)])
def test_usage_that_is_not_told_teaches_nothing(usage: TokenUsage) -> None:
    assert lesson_of(permit(), BODY, usage, Learned()) is None


def test_what_holds_media_teaches_nothing_of_text() -> None:
    body = b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}'
    assert lesson_of(permit(), body, KNOWN, Learned()) is None


@pytest.mark.parametrize(
    ("error", "nothing"),
    [
        (RateLimitedError("429", http_status=429), True),
        (ProviderFailedError("503", http_status=503), True),
        (ProviderFailedError("500", http_status=500), True),
        (ProviderBusyError("408", http_status=408), False),
        (ProviderFailedError("502", http_status=502), False),
        (ProviderFailedError("524", http_status=524), False),
        (RequestRefusedError("cannot be sent"), True),
        (ProviderTimeoutError("504", http_status=504), False),
        (ProviderTimeoutError("silent"), False),
        (ProviderUnreachableError("reset"), False),
        (ProviderFailedError("an answer that is none"), False),
    ],
)
def test_an_error_used_nothing_only_where_that_is_certain(error: ProviderError, nothing: bool) -> None:
    report = report_of(permit(TPM), ending_of(error, 0.1, Breaker()))
    assert report.used == ({"tpm": 0.0, "money": 0.0} if nothing else None)
    assert report_of(permit(), ending_of(error, 0.1, Breaker())).used is None


def test_a_job_at_a_limit_comes_back_when_it_is_free_and_is_charged_nothing() -> None:
    blocks = [Block("a", Reason.LIMIT_REACHED, 102.0, "rpm"), Block("b", Reason.BREAKER_OPEN, 120.0)]
    decision = park(blocks, History(), now=100.0, spread=0.0, alone=False)
    assert (decision.delay_s, decision.charged, decision.reason) == (2.0, False, Reason.LIMIT_REACHED)
    assert decision.wait_for == ("a", "b")


def test_what_is_spent_takes_a_person_and_is_told_only_where_nothing_else_is() -> None:
    spent = Block("a", Reason.BUDGET_SPENT, 0.0, "money")
    assert spent.reason.takes_a_person
    alone = park([spent], History(), now=100.0, spread=0.0, alone=False)
    assert (alone.delay_s, alone.reason) == (OUTAGE_PAUSE_S, Reason.BUDGET_SPENT)
    both = park(
        [spent, Block("b", Reason.RATE_LIMITED, 101.0)], History(), now=100.0, spread=0.0, alone=False
    )
    assert both.reason is Reason.RATE_LIMITED


def test_the_words_fit_the_provider() -> None:
    assert in_words("limit_reached", "a").startswith("a is at its limit of ")
    assert in_words("budget_spent", "a") == "what its owner may spend is spent: a call to a could exceed it"
