"""Providers, jobs and views for the routing tests, made up by hypothesis or by hand."""

from decimal import Decimal

from hypothesis import strategies as st

from shared.catalogue import Provider
from workers.strategies.records import RoutedJob, View

NOW = 1_800_000_000.0


def provider(name: str, **changes: object) -> Provider:
    return Provider.model_validate({"id": name, "endpoint": "http://127.0.0.1:1/v1", **changes})


def ids(providers: list[Provider]) -> list[str]:
    return [p.id for p in providers]


seconds = st.one_of(st.just(0.0), st.floats(0.001, 600))
dollars = st.one_of(st.none(), st.decimals(0, 10, places=6))

views = st.builds(
    View,
    answers=st.integers(0, 20),
    latency_s=seconds,
    latest_s=seconds,
    per_token_s=st.one_of(st.just(0.0), st.floats(1e-5, 1)),
    success_rate=st.floats(0, 1),
    in_flight=st.integers(0, 100),
    oldest_s=seconds,
    serving=st.booleans(),
    recovered_at=st.one_of(st.just(0.0), st.floats(NOW - 60, NOW + 1)),
    price=dollars,
)

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

jobs = st.builds(
    RoutedJob,
    model=st.just("m"),
    turn=st.integers(0, 2**40),
    tried=st.lists(st.integers(0, 9).map(lambda n: f"p{n}"), max_size=4).map(tuple),
    expected_output_tokens=st.one_of(st.none(), st.integers(0, 10_000)),
    left_s=st.one_of(st.none(), st.floats(-1, 100)),
    budget=st.one_of(st.none(), st.decimals(0, 10, places=6).map(Decimal)),
)

seen = st.dictionaries(st.integers(0, 9).map(lambda n: f"p{n}"), views)
