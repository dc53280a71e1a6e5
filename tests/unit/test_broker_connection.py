"""A worker's connections to the broker, on kombu's memory transport: a wish to stop ends every wait."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state
from kombu import Consumer, Producer, Queue
from kombu.transport import virtual

from workers.app import app
from workers.broker_connection import SLICE_S, StoppableConnection


@pytest.fixture
def connection() -> Iterator[StoppableConnection]:
    with StoppableConnection("memory://") as made:
        yield made


def slices(monkeypatch: pytest.MonkeyPatch, upon: Any) -> list[float]:
    """What the transport below is asked for; `upon(n)` happens in the n-th wait, which then takes no time."""
    asked: list[float] = []

    def drain(_self: object, _connection: object, timeout: float) -> None:
        asked.append(timeout)
        upon(len(asked))
        raise TimeoutError

    monkeypatch.setattr(virtual.Transport, "drain_events", drain)
    return asked


def test_celery_uses_them_for_everything() -> None:
    assert isinstance(app.connection_for_read("memory://"), StoppableConnection)
    assert isinstance(app.connection_for_write("memory://").clone(), StoppableConnection)


def test_a_message_that_waits_comes_at_once(connection: StoppableConnection) -> None:
    found: list[Any] = []
    queue = Queue("q")
    with Consumer(connection, [queue], on_message=found.append, no_ack=True):
        Producer(connection).publish({"a": 1}, routing_key="q")
        connection.drain_events(timeout=5.0)
    assert [message.payload for message in found] == [{"a": 1}]


def test_who_waits_in_vain_is_told_after_the_time_asked_for(connection: StoppableConnection) -> None:
    queue, began = Queue("q"), time.monotonic()
    with (
        Consumer(connection, [queue], on_message=lambda _: None),
        pytest.raises(TimeoutError),
    ):
        connection.drain_events(timeout=0.05)
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("wish", "code"), [("should_stop", 0), ("should_stop", True), ("should_terminate", 1)]
)
@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_wish_to_stop_ends_the_wait(
    connection: StoppableConnection,
    monkeypatch: pytest.MonkeyPatch,
    wish: str,
    code: int,
    timeout_s: float | None,
) -> None:
    asked = slices(monkeypatch, lambda n: monkeypatch.setattr(state, wish, code) if n == 3 else None)
    with pytest.raises(TimeoutError, match="to stop"):
        connection.drain_events(timeout=timeout_s)
    assert asked == [pytest.approx(SLICE_S)] * 3
    with pytest.raises(TimeoutError, match="to stop"):
        connection.drain_events(timeout=timeout_s)
    assert len(asked) == 3, "nothing more is taken from the broker"
