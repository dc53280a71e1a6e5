"""What Celery's consumer lacks on gevent and threads, hung into its own start and stop."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer import Consumer

from shared.broker import CANNOT_SEND, why_not_sent
from shared.logs import get_logger

_FLUSH_S = 0.1
_SWEEP_MOST = 1000
_SWEEP_S = 60.0
"""Where the broker is no Redis, and its messages no concern of ours."""
_log = get_logger(__name__)


class _Repeated(bootsteps.StartStopStep):
    """Something done on the consumer's own timer while it runs."""

    every_s: float

    def start(self, parent: Consumer) -> None:
        self._entry = parent.timer.call_repeatedly(self.every_s, self.once, (parent,))

    def stop(self, parent: Consumer) -> None:  # noqa: ARG002  Celery's signature
        entry = getattr(self, "_entry", None)
        if entry is not None:
            entry.cancel()

    def once(self, parent: Consumer) -> None:
        raise NotImplementedError


class SweepUnacked(_Repeated):
    """Gives back messages that a dead worker never acknowledged: under gevent Celery itself does not while slots are free."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Consumer) -> None:
        options: dict[str, Any] = parent.app.conf.broker_transport_options
        self.every_s = float(options.get("unacked_restore_interval", _SWEEP_S))
        super().start(parent)

    def once(self, parent: Consumer) -> None:
        channel = getattr(getattr(parent, "task_consumer", None), "channel", None)
        restore = getattr(getattr(channel, "qos", None), "restore_visible", None)
        if restore is not None:
            try:
                restore(num=_SWEEP_MOST, interval=1)  # kombu's own: ten, at each tenth call
            except CANNOT_SEND as exc:
                _log.warning("sweep_failed", error=why_not_sent(exc))


class BufferedEvents(_Repeated):
    """Task events go out together, ten times a second, as they do under prefork: Celery buffers them only where it runs its own loop.

    Unbuffered, three messages a task would be published before and after our own work, 1 ms of CPU a task.
    """

    requires = ("celery.worker.consumer.events:Events",)
    every_s = _FLUSH_S

    def start(self, parent: Consumer) -> None:
        self._dispatcher: Any = getattr(parent, "event_dispatcher")  # noqa: B009  unknown to the type stubs
        self._dispatcher.buffer_group = frozenset({"task"})
        super().start(parent)

    def stop(self, parent: Consumer) -> None:
        super().stop(parent)
        self.once(parent)

    def once(self, parent: Consumer) -> None:  # noqa: ARG002  one signature for all
        try:
            self._dispatcher.flush()
        except Exception as exc:  # noqa: BLE001  an edge: events are for onlookers, and must not stop the timer
            _log.warning("events_not_sent", error=type(exc).__name__)
