from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.routes import NOW, ids, jobs, provider, providers, seen

from shared import catalogue
from shared.catalogue import Provider
from shared.fitness import Unfit
from workers.routing import eligible, rank
from workers.strategies import STRATEGIES
from workers.strategies.records import UNKNOWN, WARM_UP, RoutedJob, View, call_s, chance

names = st.sampled_from(sorted(STRATEGIES))


def test_the_providers_file_knows_the_same_names() -> None:
    assert tuple(STRATEGIES) == catalogue.STRATEGIES


@given(names, jobs, providers, seen)
def test_every_eligible_provider_once_and_nothing_else(
    name: str, job: RoutedJob, known: list[Provider], views: Mapping[str, View]
) -> None:
    job = replace(job, left_s=None)
    order = rank(STRATEGIES[name], job, known, views, NOW)
    assert sorted(ids(order)) == sorted(p.id for p in known if p.enabled and "*" in p.models)
    assert order == rank(STRATEGIES[name], job, known, views, NOW), "the same arguments give the same order"


@given(names, jobs, providers, seen)
def test_who_serves_comes_before_who_does_not(
    name: str, job: RoutedJob, known: list[Provider], views: Mapping[str, View]
) -> None:
    job = replace(job, tried=(), budget=None, left_s=None)
    order = [views.get(p.id, UNKNOWN).serving for p in rank(STRATEGIES[name], job, known, views, NOW)]
    assert order == sorted(order, reverse=True)


@given(names, jobs, providers, seen)
def test_who_failed_the_job_comes_last_the_latest_failure_at_the_end(
    name: str, job: RoutedJob, known: list[Provider], views: Mapping[str, View]
) -> None:
    order = ids(rank(STRATEGIES[name], job, known, views, NOW))
    last = {name: n for n, name in enumerate(job.tried)}
    failed = [name for name in order if name in last]
    assert order[len(order) - len(failed) :] == failed == sorted(failed, key=lambda name: last[name])


@given(names, st.integers(0, 2**40), st.integers(1, 8))
def test_nothing_known_is_no_reason_to_fail(name: str, turn: int, count: int) -> None:
    known = [provider(f"p{n}") for n in range(count)]
    assert len(rank(STRATEGIES[name], RoutedJob("m", turn), known, {}, NOW)) == count


@given(st.integers(0, 2**40), st.integers(1, 500), st.floats(0, 1))
def test_chance_is_far_more_even_than_dice(turn: int, count: int, share: float) -> None:
    assert 0 <= chance(turn) < 1
    below = sum(chance(turn + n) < share for n in range(count))
    assert abs(below - share * count) <= 4


LIMITED = provider(
    "p",
    models={"m": "m"},
    capabilities=["tools", "json_object"],
    context_tokens=1000,
    max_tokens=400,
)


@pytest.mark.parametrize(
    ("job", "known", "why"),
    [
        (RoutedJob("m"), LIMITED, None),
        (RoutedJob("m"), provider("p", enabled=False), Unfit.DISABLED),
        (RoutedJob("other"), LIMITED, Unfit.MODEL),
        (RoutedJob("m", needs=frozenset({"tools"})), LIMITED, None),
        (RoutedJob("m", needs=frozenset({"tools", "vision"})), LIMITED, Unfit.CAPABILITY),
        (RoutedJob("m", needs=frozenset({"vision"})), provider("p"), None),
        (RoutedJob("m", input_tokens=600, max_output_tokens=400), LIMITED, None),
        (RoutedJob("m", input_tokens=601, max_output_tokens=400), LIMITED, Unfit.CONTEXT),
        (RoutedJob("m", input_tokens=1001), LIMITED, Unfit.CONTEXT),
        (RoutedJob("m", max_output_tokens=401), LIMITED, Unfit.MAX_TOKENS),
        (RoutedJob("m", input_tokens=10**6, max_output_tokens=10**6), provider("p"), None),
        (RoutedJob("m", allowed=frozenset({"p"})), LIMITED, None),
        (RoutedJob("m", allowed=frozenset({"q"})), LIMITED, Unfit.NOT_ASKED_FOR),
        (RoutedJob("m", allowed=frozenset()), LIMITED, Unfit.NOT_ASKED_FOR),
    ],
)
def test_why_a_provider_is_left_out(job: RoutedJob, known: Provider, why: Unfit | None) -> None:
    fit, left_out = eligible(job, [known])
    assert (ids(fit), left_out) == (([], {"p": why}) if why else (["p"], {}))


@given(jobs, providers)
def test_each_is_either_fit_or_left_out_for_a_reason(job: RoutedJob, known: list[Provider]) -> None:
    fit, left_out = eligible(job, known)
    assert sorted([*ids(fit), *left_out]) == sorted(ids(known))
    assert not left_out.keys() & set(ids(fit))


def test_a_strategy_is_asked_about_those_that_fit_only() -> None:
    asked: list[list[str]] = []

    def strategy(
        _: RoutedJob, known: Sequence[Provider], _views: Mapping[str, View], _now: float
    ) -> list[Provider]:
        asked.append(ids(list(known)))
        return list(known)

    rank(strategy, RoutedJob("m"), [provider("a"), provider("b", enabled=False), provider("c")], {}, NOW)
    assert asked == [["a", "c"]]


def too_late(job: RoutedJob, view: View) -> bool:
    judged = view.answers >= WARM_UP and job.left_s is not None
    return judged and call_s(view, job.expected_output_tokens or 0) > (job.left_s or 0)


@given(names, jobs, providers, seen)
def test_who_would_be_too_late_is_left_out_as_long_as_somebody_else_can_be_called(
    name: str, job: RoutedJob, known: list[Provider], views: Mapping[str, View]
) -> None:
    fit = {p.id for p in eligible(job, known)[0]}
    order = ids(rank(STRATEGIES[name], job, known, views, NOW))
    timely = {i for i in fit if not too_late(job, views.get(i, UNKNOWN))}
    can = any(views.get(i, UNKNOWN).serving and i not in job.tried for i in timely)
    assert set(order) == (timely if can else fit)
    assert order or not fit, "whatever the time, somebody is asked"


SLOW, QUICK = View(answers=WARM_UP, latency_s=9.0), View(answers=WARM_UP, latency_s=1.0)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize(
    ("job", "views", "left"),
    [
        (RoutedJob("m"), {"a": SLOW, "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=9.0), {"a": SLOW, "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=8.9), {"a": SLOW, "b": QUICK}, "b"),
        (RoutedJob("m", left_s=8.9), {"a": replace(SLOW, answers=WARM_UP - 1), "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=8.9), {"a": SLOW}, "b"),
        (RoutedJob("m", left_s=0.5), {"a": SLOW, "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=-1.0), {"a": SLOW, "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=8.9), {"a": SLOW, "b": replace(QUICK, serving=False)}, "ab"),
        (RoutedJob("m", left_s=8.9, tried=("b",)), {"a": SLOW, "b": QUICK}, "ab"),
        (RoutedJob("m", left_s=8.9), {"a": replace(QUICK, in_flight=1, oldest_s=9.0), "b": QUICK}, "b"),
        (
            RoutedJob("m", left_s=5.0, expected_output_tokens=100),
            {"a": replace(QUICK, per_token_s=0.1), "b": QUICK},
            "b",
        ),
    ],
)
def test_a_deadline_leaves_out_whom_it_cannot_wait_for(
    name: str, job: RoutedJob, views: dict[str, View], left: str
) -> None:
    known = [provider("a"), provider("b")]
    assert "".join(sorted(ids(rank(STRATEGIES[name], job, known, views, NOW)))) == left


def test_no_call_lasts_longer_than_its_time_limit() -> None:
    known = [provider("a", timeouts={"total_s": 5}), provider("b")]
    order = rank(STRATEGIES["failover"], RoutedJob("m", left_s=6.0), known, {"a": SLOW, "b": SLOW}, NOW)
    assert ids(order) == ["a", "b"]
