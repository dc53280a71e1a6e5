"""Where the broker is another server, and how long it counts as away."""

import pytest

from api.broker_watch import BrokerWatch, of_its_own
from shared.config import Settings


@pytest.mark.parametrize(
    ("redis", "broker", "own"),
    [
        ("redis://a:1/0", None, False),
        ("redis://a:1/0", "redis://user:pass@a:1/3", False),
        ("redis://a:1/0", "redis://a:2/0", True),
        ("redis://a:1/0", "redis://b:1/0", True),
        ("unix:///r.sock", "unix:///b.sock", True),
        ("redis://a:1/0", "amqp://guest@a//", True),
    ],
)
def test_a_broker_of_its_own(redis: str, broker: str | None, own: bool) -> None:
    environ = {"REDIS_URL": redis, **({"BROKER_URL": broker} if broker else {})}
    assert of_its_own(Settings.model_validate(environ, by_name=False)) is own


def test_it_is_away_from_the_first_look_in_vain_to_the_first_that_is_not() -> None:
    answers = iter([True, False, False, True])
    watch = BrokerWatch(lambda: next(answers))
    seen = []
    for _ in range(4):
        watch.look()
        seen.append(watch.away)
    assert seen == [False, True, True, False]


def test_one_that_is_the_ledgers_own_is_never_away() -> None:
    watch = BrokerWatch(None)
    watch.look()
    assert not watch.away
