import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.routed_fleet import Fleet
from support.routes import NOW, ids, provider

from workers.strategies.least_latency import EXPLORE, SECOND_CHANCE, expected_s, least_latency
from workers.strategies.records import WARM_UP, RoutedJob, View

ABC = [provider("a"), provider("b"), provider("c")]
USUAL_S = {"a": 0.05, "b": 0.1, "c": 0.2}
FLEETS = [(workers, concurrency) for workers in (1, 2, 4) for concurrency in (1, 2, 4)]


def warm(latency_s: float, **changes: float) -> View:
    view = {"answers": 100, "latency_s": latency_s, "latest_s": latency_s, **changes}
    return View(**view)  # type: ignore[arg-type]


def first(job: RoutedJob, views: dict[str, View]) -> str:
    return least_latency(job, ABC, views, NOW)[0].id


def shares(views: dict[str, View], turns: int = 2000) -> dict[str, float]:
    found = Counter(first(RoutedJob("m", turn), views) for turn in range(turns))
    return {name: found[name] / turns for name in "abc"}


# the requirement, in simulated time: 50, 100 and 200 ms


class Upstream:
    """Its first provider can be slowed down."""

    factor = 1.0

    def latency(self, name: str, _in_flight: int, _at: float) -> float:
        return USUAL_S[name] * (self.factor if name == "a" else 1)

    def fleet(self, workers: int, concurrency: int) -> Fleet:
        fleet = Fleet(least_latency, ABC, self.latency, workers=workers, concurrency=concurrency)
        fleet.run(50)
        return fleet


@pytest.mark.parametrize(("workers", "concurrency"), FLEETS)
def test_after_fifty_answers_the_fastest_has_95_percent(workers: int, concurrency: int) -> None:
    fleet = Upstream().fleet(workers, concurrency)
    since = len(fleet.sent)
    fleet.run(1000)
    assert fleet.share("a", since) >= 0.95
    assert min(fleet.share("b", since), fleet.share("c", since)) >= 0.005, "the others are looked at"


@pytest.mark.parametrize(("workers", "concurrency"), FLEETS)
def test_a_fastest_that_degrades_is_left_within_twenty_slow_answers(workers: int, concurrency: int) -> None:
    upstream = Upstream()
    fleet = upstream.fleet(workers, concurrency)
    fleet.run(500)
    upstream.factor, since, answered = 5.0, len(fleet.sent), len(fleet.done)
    fleet.run(1000)
    windows = [fleet.share("a", n, n + 50) for n in range(since, len(fleet.sent) - 50)]
    left = next(n for n in range(len(windows)) if max(windows[n:]) < 0.1) + since
    slow = [d for d in fleet.done[answered:] if d.provider == "a" and d.duration_s > 4 * USUAL_S["a"]]
    assert sum(d.sent_before <= left for d in slow) <= 20, "answers that came before it was left"
    assert sum(s.provider == "a" for s in fleet.sent[since:left]) <= 20, "with those still to come"


@pytest.mark.parametrize(("workers", "concurrency"), FLEETS)
def test_one_that_recovers_is_found_again(workers: int, concurrency: int) -> None:
    upstream = Upstream()
    fleet = upstream.fleet(workers, concurrency)
    upstream.factor = 5.0
    fleet.run(2000)
    upstream.factor, since = 1.0, len(fleet.sent)
    fleet.run(600)
    windows = [fleet.share("a", n, n + 50) for n in range(since, len(fleet.sent) - 50)]
    back = next(n for n, share in enumerate(windows) if share >= 0.9)
    assert back <= 300, "jobs, of which it had 14 or so"


def test_answers_of_very_different_length_do_not_mislead() -> None:
    """The oldest of forty calls is old without anything being wrong."""
    dice = random.Random(7)
    fleet = Fleet(
        least_latency,
        ABC,
        lambda name, _in_flight, _at: USUAL_S[name] * math.exp(dice.gauss(-0.125, 0.5)),
        workers=2,
        concurrency=40,
    )
    fleet.run(300)
    since = len(fleet.sent)
    fleet.run(2000)
    assert fleet.share("a", since) >= 0.95


def test_no_herd_runs_to_the_momentarily_fastest() -> None:
    """Two equal ones that take half as long again with eight calls under way."""
    fleet = Fleet(
        least_latency, ABC[:2], lambda _n, flying, _at: 0.1 * (1 + flying / 20), workers=4, concurrency=4
    )
    fleet.run(200)
    since = len(fleet.sent)
    fleet.run(2000)
    windows = [fleet.share("a", n, n + 50) for n in range(since, len(fleet.sent) - 50)]
    assert 0.3 <= min(windows) <= max(windows) <= 0.7


# its parts


@pytest.mark.parametrize("turn", range(0, 200, 7))
def test_each_is_asked_a_few_times_before_it_is_judged(turn: int) -> None:
    views = {"a": warm(0.01, answers=WARM_UP), "b": warm(9.0, answers=WARM_UP - 1), "c": warm(0.1)}
    views["c"] = warm(0.1, answers=WARM_UP)
    assert first(RoutedJob("m", turn), views) == "b"
    assert first(RoutedJob("m", turn, tried=("c",)), views) == "a", "what has failed is no guinea pig"
    views["b"] = warm(9.0, answers=WARM_UP - 1, in_flight=1)
    assert first(RoutedJob("m", turn, tried=("c",)), views) == "a", "enough are under way"


def test_at_first_each_has_as_many_calls_as_the_others() -> None:
    flying: Counter[str] = Counter()
    for turn in range(30):
        views = {name: View(in_flight=flying[name]) for name in "abc"}
        flying[first(RoutedJob("m", turn), views)] += 1
    assert flying == {"a": 10, "b": 10, "c": 10}


def test_a_newcomer_to_a_warm_fleet_gets_few_jobs() -> None:
    found = shares({"a": warm(0.1), "b": warm(0.2)})
    assert found["a"] == pytest.approx(1 - EXPLORE - SECOND_CHANCE, abs=0.003)
    assert found["c"] == pytest.approx(EXPLORE / 2 + SECOND_CHANCE, abs=0.003)


def test_one_whose_latest_answer_was_quick_is_looked_at_more_often() -> None:
    found = shares({"a": warm(0.1), "b": warm(0.5, latest_s=0.05), "c": warm(0.5)})
    assert found["b"] == pytest.approx(EXPLORE / 2 + SECOND_CHANCE, abs=0.003)
    assert found["c"] == pytest.approx(EXPLORE / 2, abs=0.003)


views_of_three = st.fixed_dictionaries(
    {
        name: st.builds(
            View,
            answers=st.integers(20, 100),
            latency_s=st.floats(0.01, 10),
            latest_s=st.floats(0.01, 10),
            success_rate=st.floats(0.5, 1),
        )
        for name in "abc"
    }
)


@given(views_of_three)
def test_once_warm_at_most_a_twentieth_goes_to_the_clearly_slower(views: dict[str, View]) -> None:
    best = min(expected_s(view) for view in views.values())
    found = shares(views, 500)
    assert sum(found[name] for name in "abc" if expected_s(views[name]) > 1.4 * best) <= 0.05 + 4 / 500


@given(views_of_three, st.sampled_from("abc"), st.floats(0.99, 1.01))
def test_a_small_change_moves_few_jobs(views: dict[str, View], name: str, factor: float) -> None:
    """Between them, wherever they stand: there is no edge at which the flow turns over."""
    views = {other: View(answers=100, latency_s=view.latency_s) for other, view in views.items()}
    before = shares(views, 500)
    after = shares({**views, name: View(answers=100, latency_s=views[name].latency_s * factor)}, 500)
    assert all(abs(before[other] - after[other]) <= 0.06 for other in "abc")


def test_the_nearly_as_fast_share_and_the_clearly_better_has_all() -> None:
    assert shares({"a": warm(1.0), "b": warm(1.0), "c": warm(9.0)})["a"] == pytest.approx(0.49, abs=0.015)
    assert shares({"a": warm(1.0), "b": warm(1.2), "c": warm(9.0)})["b"] == pytest.approx(0.33, abs=0.015)
    assert shares({"a": warm(1.0), "b": warm(1.4), "c": warm(9.0)})["b"] == pytest.approx(0.01, abs=0.003)


def test_one_that_hangs_is_left_before_its_answer_comes() -> None:
    hanging = {"a": warm(0.05, in_flight=1, oldest_s=0.2), "b": warm(0.1), "c": warm(0.2)}
    assert shares(hanging) == {
        "a": 0.0,
        "b": pytest.approx(0.98, abs=0.01),
        "c": pytest.approx(0.02, abs=0.01),
    }
    old = {**hanging, "a": warm(0.05, in_flight=40, oldest_s=0.2)}
    assert shares(old)["a"] >= 0.95, "the oldest of forty is old"


def test_a_deadline_is_not_spent_on_exploring() -> None:
    views = {"a": warm(0.1), "b": warm(5.0), "c": warm(9.0)}
    assert {first(RoutedJob("m", turn, left_s=1.0), views) for turn in range(500)} == {"a"}
    assert {first(RoutedJob("m", turn, left_s=6.0), views) for turn in range(500)} == {"a", "b"}


def test_failures_push_a_provider_back() -> None:
    order = least_latency(RoutedJob("m", 1), ABC, {"a": warm(1.0, success_rate=0.4), "b": warm(2.0)}, NOW)
    assert ids(order) == ["b", "a", "c"]


def test_the_length_of_the_answer_counts_where_all_paces_are_known() -> None:
    """`a` is quick to begin and slow to go on."""
    views = {
        "a": warm(1.0, per_token_s=0.02),
        "b": warm(1.5, per_token_s=0.01),
        "c": warm(9.0, per_token_s=1),
    }
    assert first(RoutedJob("m", 1, expected_output_tokens=10), views) == "a"
    assert first(RoutedJob("m", 1, expected_output_tokens=500), views) == "b"
    assert first(RoutedJob("m", 1), views) == "a"
    views["c"] = warm(9.0)
    assert first(RoutedJob("m", 1, expected_output_tokens=500), views) == "a", "like with like"


def test_expected_seconds() -> None:
    assert expected_s(View(latency_s=2.0)) == 2.0
    assert expected_s(View(latency_s=2.0, per_token_s=0.01), 400) == 3.0
    assert expected_s(View(latency_s=2.0, in_flight=1, oldest_s=5.0)) == 5.0
    assert expected_s(View(latency_s=2.0, success_rate=0.5)) == 4.0
    assert expected_s(View(latency_s=1.0, in_flight=10, oldest_s=5.0)) == pytest.approx(
        5 / (1 + math.log(10))
    )


def test_who_cannot_be_called_is_not_explored() -> None:
    views = {"a": warm(0.1), "b": View(serving=False), "c": warm(0.01, serving=False)}
    assert {tuple(ids(least_latency(RoutedJob("m", t), ABC, views, NOW))) for t in range(200)} == {
        ("a", "c", "b")
    }
