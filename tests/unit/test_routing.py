from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shared.catalogue import Provider
from workers.routing import STRATEGIES, RoutedJob, rank


def provider(name: str, **changes: object) -> Provider:
    return Provider.model_validate({"id": name, "endpoint": "http://127.0.0.1:1/v1", **changes})


providers = st.lists(
    st.builds(
        lambda n, weight, priority, enabled, any_model: provider(
            f"p{n}",
            weight=weight,
            priority=priority,
            enabled=enabled,
            models={"*": "*"} if any_model else {"other": "other"},
        ),
        st.integers(0, 9),
        st.integers(1, 5),
        st.integers(1, 3),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda p: p.id,
    max_size=8,
)


@given(
    st.sampled_from(sorted(STRATEGIES)),
    providers,
    st.integers(0, 1000),
    st.lists(st.integers(0, 9), max_size=4),
)
def test_every_eligible_provider_once_and_nothing_else(
    strategy: str, known: list[Provider], turn: int, tried: list[int]
) -> None:
    order = rank(strategy, RoutedJob("m", turn, tuple(f"p{n}" for n in tried)), known)
    wanted = {p.id for p in known if p.enabled and "*" in p.models}
    assert sorted(p.id for p in order) == sorted(wanted)


@given(providers)
def test_round_robin_is_fair_by_weight(known: list[Provider]) -> None:
    served = [p for p in known if p.enabled and "*" in p.models]
    total = sum(p.weight for p in served)
    firsts = Counter(rank("round_robin", RoutedJob("m", turn), known)[0].id for turn in range(total))
    assert firsts == {p.id: p.weight for p in served}


def test_weights_are_spread_out() -> None:
    known = [provider("a", weight=3), provider("b"), provider("c")]
    assert [rank("round_robin", RoutedJob("m", t), known)[0].id for t in range(5)] == [
        "a",
        "b",
        "a",
        "c",
        "a",
    ]


def test_failover_goes_by_priority_and_puts_the_last_failure_last() -> None:
    known = [provider("c", priority=3), provider("a", priority=1), provider("b", priority=2)]
    assert [p.id for p in rank("failover", RoutedJob("m"), known)] == ["a", "b", "c"]
    assert [p.id for p in rank("failover", RoutedJob("m", tried=("a",)), known)] == ["b", "c", "a"]
    assert [p.id for p in rank("failover", RoutedJob("m", tried=("b", "a")), known)] == ["c", "b", "a"]
