"""Hears how lone jobs ended: one thread per API process on a Redis channel of its own."""

import threading
import time
from collections.abc import Callable

import msgspec
import redis
from redis.client import PubSub

from shared.keys import Keys
from shared.logs import get_logger
from shared.lone import Reply
from shared.redis_refusals import refusal

_LOOK_S = 0.5
_AWAY_S = 0.2
_replies = msgspec.msgpack.Decoder(list[Reply])
_log = get_logger(__name__)


class RedisReplies:
    """`heard` gets what was published, `tick` is called about twice a second. Both are called in this thread.

    What is published while the connection is away is lost: `tick` is told so (True) after each new subscription.
    """

    def __init__(
        self,
        client: redis.Redis,
        channel: str,
        heard: Callable[[list[Reply]], None],
        tick: Callable[[bool], None],
    ) -> None:
        self._client = client
        self._channel = channel
        self._heard = heard
        self._tick = tick
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="replies", daemon=True)

    @classmethod
    def of(
        cls,
        client: redis.Redis,
        prefix: str,
        process: str,
        *,
        heard: Callable[[list[Reply]], None],
        tick: Callable[[bool], None],
    ) -> "RedisReplies":
        return cls(client, Keys(prefix).replies(process), heard, tick)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                with PubSub(self._client.connection_pool, ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(self._channel)
                    self._listen(pubsub)
            except (redis.RedisError, OSError) as exc:
                _log.warning("replies_away", error=refusal(exc) or type(exc).__name__)
                self._stopping.wait(_AWAY_S)
            except Exception:  # noqa: BLE001  an edge: callers wait for this thread
                _log.exception("replies_failed")
                self._stopping.wait(_AWAY_S)

    def _listen(self, pubsub: PubSub) -> None:
        fresh, ticked = True, 0.0
        while not self._stopping.is_set():
            message = pubsub.get_message(timeout=_LOOK_S)
            if message is not None and message["type"] == "message":
                self._heard(_replies.decode(message["data"]))
            if message is None or time.monotonic() - ticked >= _LOOK_S:
                self._tick(fresh)
                fresh, ticked = False, time.monotonic()
