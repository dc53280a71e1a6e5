"""Celery's messages while Redis is full: kombu may neither register nor forget one then, and neither must end a worker.

A hint that is not registered runs all the same, and one that is not forgotten comes again an hour later: losing or
doubling a hint harms nothing (ops/docs/ledger.md).
"""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from kombu.transport import redis as transport
from kombu.transport import virtual
from redis.exceptions import OutOfMemoryError

from shared.logs import get_logger

_REFRESH = "maybe_refresh_binding_expiry"

_log = get_logger(__name__)


class HintQoS(transport.QoS):
    """kombu's bookkeeping of unacknowledged messages, which goes on in this process alone where Redis refuses it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            _log.debug("hint_not_registered")
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except OutOfMemoryError:
            _log.debug("hint_not_forgotten")
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  kombu's signature
        try:
            super().reject(delivery_tag, requeue)
        except OutOfMemoryError:
            _log.debug("hint_not_forgotten")
            virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """As its connection closes: on threads another has often closed half of it already, which kombu does not expect."""
        try:
            super().restore_unacked_once(stderr)
        except Exception as exc:  # noqa: BLE001  an edge: what is not given back now comes again by itself
            _log.debug("hints_not_given_back", error=type(exc).__name__)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        try:
            super().restore_visible(start, num, interval)
        except OutOfMemoryError:
            _log.debug("hints_not_swept")


def _unless_full(refresh: Callable[[Any], None]) -> Callable[[Any], None]:
    """Without the traceback that would be logged each time: kombu tries again within a second."""

    @wraps(refresh)
    def once(channel: Any) -> None:
        with suppress(OutOfMemoryError):
            refresh(channel)

    return once


def install() -> None:
    """For every connection that this process makes from now on. To be called once."""
    transport.Channel.QoS = HintQoS
    refresh = getattr(transport.Channel, _REFRESH, None)
    if refresh is not None:  # kombu's releases before 5.7 have none
        setattr(transport.Channel, _REFRESH, _unless_full(refresh))
