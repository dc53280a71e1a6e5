"""The worker's connections to the broker: they wait in slices, so that an idle worker that is told to stop notices at once.

Celery's own loop waits 2 s at a time, and once more after it has seen the wish to stop; the loop of remote control waits
1 s. An idle worker took up to five seconds to leave, most of them spent waiting for messages that it would not have run.
"""

import time
from typing import Any

from celery.app.amqp import AMQP
from celery.worker import state
from kombu import Connection
from kombu.utils import functional

SLICE_S = 0.2
_SLEEP = "sleep"
_LEAVING_S = 0.02  # remote control's loop goes on asking until it is told to stop


def let_others_run() -> None:
    """While it waits for the broker under gevent, whose patch comes too late for kombu.

    Without it the whole worker stands still for seconds between two tries to connect: calls, leases, heartbeat.
    """
    setattr(functional, _SLEEP, time.sleep)


class StoppableConnection(Connection):
    """kombu's, whose `drain_events` looks between slices whether the worker is to stop."""

    def drain_events(self, timeout: float | None = None, **more: Any) -> Any:
        """The next event; raises TimeoutError after `timeout` seconds (None: never), or when the worker is to stop."""
        until = None if timeout is None else time.monotonic() + timeout
        while not _stopping():
            left = SLICE_S if until is None else min(SLICE_S, until - time.monotonic())
            try:
                return super().drain_events(timeout=max(left, 0.0), **more)
            except TimeoutError:
                if until is not None and time.monotonic() >= until:
                    raise
        time.sleep(_LEAVING_S)
        raise TimeoutError("the worker is to stop")


def _stopping() -> bool:
    """As Celery itself reads these two: whatever is neither None nor False is a wish, exit code 0 included."""
    wishes: tuple[Any, ...] = (state.should_stop, state.should_terminate)
    return any(wish is not None and wish is not False for wish in wishes)


class Amqp(AMQP):
    """For `Celery(amqp=...)`: every connection that the application makes is a stoppable one."""

    Connection = StoppableConnection
