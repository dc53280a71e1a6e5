"""What is asked of replicas before a submit is answered 2xx."""

import asyncio
import threading
from collections.abc import Sequence
from typing import cast

import pytest

from api.replicas import NOT_REPLICATED, Replicas
from shared.errors import StoreUnavailableError
from shared.redis_replicas import RedisReplicas


class Answers:
    """Stands for Redis: what `acknowledged` gives, and when it is let."""

    replicas, within_s = 1, 0.4

    def __init__(self, there: list[bool] | Exception | None, *, waits: bool = False) -> None:
        self.there = there
        self.asked: list[list[str]] = []
        self.under_way, self.go_on = threading.Event(), threading.Event()
        if not waits:
            self.go_on.set()

    def acknowledged(self, keys: Sequence[str]) -> list[bool] | None:
        self.asked.append(list(keys))
        self.under_way.set()
        assert self.go_on.wait(10)
        if isinstance(self.there, Exception):
            raise self.there
        return self.there and [self.there[0] for _ in keys]


def confirmed(store: Answers, keys: Sequence[str]) -> list[BaseException | None]:
    """What became of each; the first is asked about alone, where the store waits."""

    async def run() -> list[BaseException | None]:
        replicas = Replicas(cast("RedisReplicas", store))
        replicas.start()
        first = asyncio.ensure_future(replicas.confirm(keys[0], keys[0]))
        assert await asyncio.to_thread(store.under_way.wait, 10)
        rest = [asyncio.ensure_future(replicas.confirm(key, key)) for key in keys[1:]]
        await asyncio.sleep(0)  # they are on the list
        store.go_on.set()
        found = await asyncio.gather(first, *rest, return_exceptions=True)
        replicas.stop()
        return found

    return asyncio.run(run())


def test_who_comes_while_a_question_is_under_way_is_asked_about_with_the_others() -> None:
    store = Answers([True], waits=True)
    assert confirmed(store, ["a", "b", "c"]) == [None, None, None]
    assert store.asked == [["a"], ["b", "c"]]


def test_when_replicas_are_away_nobody_has_to_find_that_out_one_by_one() -> None:
    store = Answers(None, waits=True)
    found = confirmed(store, ["a", "b", "c"])
    assert store.asked == [["a"]]
    for key, error in zip("abc", found, strict=True):
        assert isinstance(error, StoreUnavailableError)
        assert error.code == NOT_REPLICATED
        assert error.message.startswith(f"{key} is kept here")


def test_what_a_failover_has_lost_meanwhile_is_said() -> None:
    (error,) = confirmed(Answers([False]), ["a"])
    assert isinstance(error, StoreUnavailableError)
    assert "lost" in error.message


@pytest.mark.parametrize("fault", [StoreUnavailableError("away"), RuntimeError("a fault of ours")])
def test_every_other_fault_reaches_its_caller_and_ends_nothing(fault: Exception) -> None:
    store = Answers(fault)
    assert confirmed(store, ["a"]) == [fault]


def test_without_the_setting_nothing_is_asked() -> None:
    asyncio.run(Replicas(None).confirm("k", "id"))
