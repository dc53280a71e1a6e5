"""The broker: task names, the hint that travels, and Celery's settings. The API sends by name and never imports the workers."""

import os
import socket
from collections.abc import Iterable
from typing import Any

import msgspec
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.broker_redis import redis_transport
from shared.config import Settings
from shared.errors import HintError
from shared.ids import new_id
from shared.logs import get_logger
from shared.lone import LONE
from shared.queues import BATCH_QUEUE, EXCHANGE, INTERACTIVE_QUEUE
from shared.redis_client import Role
from shared.redis_refusals import refusal

RUN_SHARD = "llm_edge.run_shard"

_EXCHANGE = Exchange(EXCHANGE, type="direct")

HINT_VERSION = 1

POOL_SLOTS = 256
"""Greenlets or threads in Celery's pool: more than the shards that can run, so that a hint never waits behind one."""

CANNOT_SEND = (OperationalError, OSError, RedisError)
"""What kombu raises where the broker is away or refuses something."""

_log = get_logger(__name__)


class Hint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a Celery message carries: the shard to look at, or `lone` for lone jobs. Losing or doubling one harms nothing."""

    v: int
    ref: str


def pack_hint(ref: str) -> dict[str, Any]:
    """The message's one argument; its form is kept by a golden file in the tests."""
    return {"v": HINT_VERSION, "ref": ref}


def read_hint(raw: Any) -> Hint:
    """Raises HintError for a version or form that this process does not know."""
    try:
        hint = msgspec.convert(raw, Hint)
    except msgspec.ValidationError as exc:
        raise HintError(f"a hint of unknown form was left alone: {exc}") from exc
    if hint.v != HINT_VERSION:
        raise HintError(
            f"a hint of version {hint.v} was left alone; this process knows version {HINT_VERSION}"
        )
    return hint


def celery_settings(settings: Settings, role: Role) -> dict[str, Any]:
    """Celery's configuration, in its own names. The reasons stand beside what is not the default."""
    return {
        **_transport(settings, role),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # what Redis refuses (memory, a new master) must not end a worker
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,  # results live in the ledger
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_queues": [
            Queue(name, _EXCHANGE, routing_key=name) for name in (INTERACTIVE_QUEUE, BATCH_QUEUE)
        ],
        "task_default_queue": BATCH_QUEUE,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_concurrency": max(POOL_SLOTS, settings.concurrency),  # shards side by side, not calls
        "worker_prefetch_multiplier": 2,  # 1 starves under gevent
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the lease decides, not the connection
        "worker_enable_remote_control": True,
        "enable_utc": True,
    }


def _transport(settings: Settings, role: Role) -> dict[str, Any]:
    if settings.broker is None:
        return {"broker_url": settings.broker_url, "broker_transport_options": {}}
    # under gevent every ack takes a connection at once
    most = 20 if role == "api" else POOL_SLOTS + 50
    return redis_transport(
        settings.broker, role, max_connections=most, visibility_s=settings.hint_visibility_s
    )


class Hints:
    """Sends hints by task name. What cannot be sent is left to the reaper, which sends another."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def warm(self) -> None:
        """Make the connections and declarations that the first message would otherwise wait for."""
        try:
            with self._app.producer_or_acquire() as producer:
                for queue in self._app.amqp.queues.values():
                    queue(producer.channel).declare()
            with self._app.events.default_dispatcher() as dispatcher:
                dispatcher.send("worker-heartbeat", retry=False)
        except CANNOT_SEND as exc:
            _log.warning("broker_away", error=why_not_sent(exc))

    def answers(self) -> bool:
        """Whether the broker can be reached now, on a connection of its own."""
        connection = self._app.connection_for_write()
        try:
            connection.connect()
        except Exception as exc:  # noqa: BLE001  an edge: each kind of broker has errors of its own
            _log.debug("broker_away", error=why_not_sent(exc))
            return False
        finally:
            connection.release()
        return True

    def send(self, refs: Iterable[str]) -> int:
        """How many went out; stops at the first that the broker does not take."""
        sent = 0
        for ref in refs:
            try:
                lone = ref == LONE
                self._app.send_task(
                    RUN_SHARD,
                    args=[pack_hint(ref)],
                    queue=INTERACTIVE_QUEUE if lone else BATCH_QUEUE,
                    task_id=new_id("lone-") if lone else ref,
                    retry=False,
                )
            except CANNOT_SEND as exc:
                _log.warning("hint_not_sent", ref=ref, error=why_not_sent(exc))
                break
            sent += 1
        return sent


def why_not_sent(exc: BaseException) -> str:
    """For the log: what the broker refuses, or else the kind of error."""
    return refusal(exc) or type(exc).__name__


def make_sender(settings: Settings) -> Hints:
    """For a process that only sends (the API)."""
    app = Celery("llm_edge", set_as_current=False)
    app.conf.update(celery_settings(settings, "api"))
    return Hints(app)


def process_id() -> str:
    """Names this process among all that share the ledger: host, pid and a random tail, since pids come again."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
