"""Celery's event bus as a monitor hears it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from support.stack import Stack
from support.waiting import wait_for


@contextmanager
def task_events(stack: Stack) -> Iterator[list[dict[str, Any]]]:
    """What a monitor on Celery's bus sees."""
    app = Celery(broker=stack.valkey.url, set_as_current=False)
    seen: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(
            target=receiver.capture, kwargs={"limit": None, "wakeup": True}, daemon=True
        )
        thread.start()
        wait_for(lambda: seen, 10, "the workers' heartbeats on Celery's bus")
        try:
            yield seen
        finally:
            receiver.should_stop = True
            thread.join(10)
