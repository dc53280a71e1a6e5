from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.routes import NOW, ids, jobs, provider, providers, seen

from shared.catalogue import Provider
from workers.routing import eligible, rank
from workers.strategies import STRATEGIES
from workers.strategies.cost_optimized import FLOOR, TRIAL, cost_optimized
from workers.strategies.failover import failover
from workers.strategies.records import UNKNOWN, RoutedJob, View
from workers.strategies.round_robin import round_robin

ABC = [provider("a", priority=1), provider("b", priority=2), provider("c", priority=3)]


def firsts(strategy: str, known: list[Provider], views: dict[str, View], turns: int) -> Counter[str]:
    rule = STRATEGIES[strategy]
    return Counter(rule(RoutedJob("m", turn), known, views, NOW)[0].id for turn in range(turns))


# round robin


@given(providers, st.integers(0, 2**40))
def test_round_robin_is_fair_by_weight(known: list[Provider], start: int) -> None:
    served, _ = eligible(RoutedJob("m"), known)
    turns = range(start, start + sum(p.weight for p in served))
    found = Counter(rank(round_robin, RoutedJob("m", turn), known, {}, NOW)[0].id for turn in turns)
    assert found == {p.id: p.weight for p in served}


def test_weights_are_spread_out() -> None:
    known = [provider("a", weight=3), provider("b"), provider("c")]
    assert [round_robin(RoutedJob("m", t), known, {}, NOW)[0].id for t in range(5)] == list("abaca")


def test_who_cannot_be_called_leaves_its_turns_to_all_others() -> None:
    known = [provider("a", weight=2), provider("b"), provider("c")]
    views = {"b": View(serving=False)}
    assert firsts("round_robin", known, views, 300) == {"a": 200, "c": 100}
    assert firsts("round_robin", known, {"a": View(serving=False)}, 300) == {"b": 150, "c": 150}
    order = round_robin(RoutedJob("m"), known, {"a": View(serving=False)}, NOW)
    assert ids(order) == ["b", "c", "a"]


# failover


def test_failover_goes_by_priority_and_puts_the_last_failure_last() -> None:
    known = [ABC[2], ABC[0], ABC[1]]
    assert ids(rank(failover, RoutedJob("m"), known, {}, NOW)) == ["a", "b", "c"]
    assert ids(rank(failover, RoutedJob("m", tried=("a",)), known, {}, NOW)) == ["b", "c", "a"]
    assert ids(rank(failover, RoutedJob("m", tried=("b", "a")), known, {}, NOW)) == ["c", "b", "a"]


def test_failover_puts_who_cannot_be_called_last() -> None:
    assert ids(failover(RoutedJob("m"), ABC, {"a": View(serving=False)}, NOW)) == ["b", "c", "a"]
    shut = {"a": View(serving=False), "b": View(serving=False)}
    assert ids(failover(RoutedJob("m"), ABC, shut, NOW)) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("age_s", "share"), [(-1, 0.1), (0, 0.1), (10, 0.4), (15, 0.55), (20, 0.7), (30, 1.0), (1e6, 1.0)]
)
def test_a_recovered_primary_comes_back_slowly(age_s: float, share: float) -> None:
    found = firsts("failover", ABC, {"a": View(recovered_at=NOW - age_s)}, 1000)
    assert found["a"] == pytest.approx(1000 * share, abs=4)
    assert found["b"] == 1000 - found["a"], "the next in line has the rest"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_where_all_have_just_recovered_the_first_has_what_none_takes(count: int) -> None:
    known = ABC[:count]
    found = firsts("failover", known, {p.id: View(recovered_at=NOW) for p in known}, 1000)
    assert found["a"] == pytest.approx(1000 * (0.1 + 0.9**count), abs=4)


def test_the_next_in_line_takes_over_though_the_one_between_has_just_recovered_too() -> None:
    views = {"a": View(recovered_at=NOW), "b": View(recovered_at=NOW)}
    found = firsts("failover", ABC, views, 1000)
    assert [found[name] for name in "abc"] == [pytest.approx(n, abs=4) for n in (100, 90, 810)]


def test_how_long_a_return_takes_can_be_set() -> None:
    views = {"a": View(recovered_at=NOW - 30)}
    found = [failover(RoutedJob("m", t), ABC, views, NOW, slow_start_s=60)[0].id for t in range(1000)]
    assert found.count("a") == pytest.approx(550, abs=4)
    assert failover(RoutedJob("m", 1), ABC, {"a": View(recovered_at=NOW)}, NOW, slow_start_s=0)[0].id == "a"


# cost


def dollars(**prices: str) -> dict[str, View]:
    return {name: View(price=Decimal(price), latency_s=1.0) for name, price in prices.items()}


def costs(views: dict[str, View], budget: str | None = None, turn: int = 1) -> list[str]:
    job = RoutedJob("m", turn, budget=None if budget is None else Decimal(budget))
    return ids(cost_optimized(job, ABC, views, NOW))


def test_the_cheapest_for_this_job_first_and_unknown_prices_after_known_ones() -> None:
    assert costs(dollars(a="3", b="1", c="2")) == ["b", "c", "a"]
    assert costs(dollars(b="3", c="2")) == ["c", "b", "a"]
    assert costs({}) == ["a", "b", "c"]


def test_ties_by_latency_then_as_in_the_file() -> None:
    views = {name: View(price=Decimal(1), latency_s=s) for name, s in (("a", 2.0), ("b", 1.0), ("c", 2.0))}
    assert costs(views) == ["b", "a", "c"]


def test_the_unwell_come_after_all_healthy_ones_however_cheap() -> None:
    views = dollars(a="3", c="9")
    assert costs({**views, "b": View(price=Decimal(0), success_rate=FLOOR - 0.01)}) == ["a", "c", "b"]
    assert costs({**views, "b": View(price=Decimal(0), serving=False)}) == ["a", "c", "b"]
    assert costs({**views, "b": View(price=Decimal(0), success_rate=FLOOR)}) == ["b", "a", "c"]


def test_whoever_is_dearer_than_the_budget_comes_last() -> None:
    views = {**dollars(a="3", c="1"), "b": View(serving=False, price=Decimal(2))}
    assert costs(views, budget="2") == ["c", "b", "a"]
    assert costs({**views, "c": UNKNOWN}, budget="2") == ["c", "b", "a"]


@given(jobs, providers, seen)
def test_the_first_is_the_cheapest_of_the_healthy(
    job: RoutedJob, known: list[Provider], views: dict[str, View]
) -> None:
    order = [views.get(p.id, UNKNOWN) for p in cost_optimized(job, known, views, NOW)]
    healthy = [
        v
        for v in order
        if v.serving
        and v.success_rate >= FLOOR
        and not (v.price is not None and job.budget is not None and v.price > job.budget)
    ]
    if healthy and order[0].success_rate >= FLOOR:
        prices = [v.price for v in healthy if v.price is not None]
        assert order[0] in healthy
        assert order[0].price == min(prices, default=None)


def test_a_cheaper_one_that_is_unwell_is_tried_now_and_then() -> None:
    """Else its success rate would never change again."""
    views = {**dollars(a="3", c="2"), "b": View(price=Decimal(1), success_rate=0.5)}
    found = firsts("cost_optimized", ABC, views, 1000)
    assert found == {"c": 1000 - found["b"], "b": pytest.approx(1000 * TRIAL, abs=3)}
    tried = View(price=Decimal(1), success_rate=0.5, in_flight=1)
    assert firsts("cost_optimized", ABC, {**views, "b": tried}, 1000) == {"c": 1000}
    dearer = View(price=Decimal("2.5"), success_rate=0.5)
    assert firsts("cost_optimized", ABC, {**views, "b": dearer}, 1000) == {"c": 1000}
