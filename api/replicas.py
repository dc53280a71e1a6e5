"""Holds back a submit's 2xx until replicas have it, where LLM_EDGE_WAIT_REPLICAS asks for that.

Requests that come while one question is under way are asked about together in the next.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from shared.errors import EdgeError, StoreUnavailableError
from shared.logs import get_logger
from shared.redis_replicas import RedisReplicas

MOST = 256
NOT_REPLICATED = "not_replicated"
"""The code of the 503."""

_log = get_logger(__name__)


class _Entry(msgspec.Struct, frozen=True):
    key: str
    name: str
    done: "asyncio.Future[None]"


class Replicas:
    """One per API process; without a `store` nothing is asked. `confirm` belongs to the event loop."""

    def __init__(self, store: RedisReplicas | None) -> None:
        self._store = store
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._store is not None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._ask_on, args=(self._store,), name="replicas", daemon=True
            )
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        if self._thread is not None:
            self._entries.put(None)
            self._thread.join(timeout_s)

    async def confirm(self, key: str, name: str) -> None:
        """Returns once enough replicas have what stands under `key`; `name` is its id, as the caller knows it.

        Raises StoreUnavailableError.
        """
        if self._store is None:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._entries.put(_Entry(key, name, done))
        await done

    # in a thread of its own: WAIT may take long, and nothing else is to wait for it

    def _ask_on(self, store: RedisReplicas) -> None:
        while group := self._gather(wait=True):
            try:
                there = store.acknowledged([entry.key for entry in group])
            except StoreUnavailableError as exc:
                self._tell(_refuse, [*group, *self._gather(wait=False)], lambda _, exc=exc: exc)
            except Exception as exc:  # noqa: BLE001  an edge: the next group must be asked about, too
                _log.exception("replicas_failed")
                self._tell(_refuse, group, lambda _, exc=exc: exc)
            else:
                if there is None:  # nor do those who came meanwhile have to find that out one by one
                    self._tell(_refuse, [*group, *self._gather(wait=False)], lambda e: _behind(e.name, store))
                else:
                    self._tell(_settle, group, there)

    def _gather(self, *, wait: bool) -> list[_Entry]:
        """What is there to ask about; nothing where it is time to end."""
        group: list[_Entry] = []
        with suppress(queue.Empty):
            while len(group) < MOST:
                entry = self._entries.get(block=wait and not group)
                if entry is None:
                    if group or not wait:
                        self._entries.put(None)  # this group first
                    break
                group.append(entry)
        return group

    def _tell(self, act: Callable[..., None], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *args)


def _settle(group: list[_Entry], there: list[bool]) -> None:
    _refuse([entry for entry, found in zip(group, there, strict=True) if not found], lambda e: _lost(e.name))
    for entry in group:
        if not entry.done.done():
            entry.done.set_result(None)


def _refuse(group: list[_Entry], why: Callable[[_Entry], Exception]) -> None:
    for entry in group:
        if not entry.done.done():
            entry.done.set_exception(why(entry))


def _behind(name: str, store: RedisReplicas) -> EdgeError:
    return StoreUnavailableError(
        f"{name} is kept here and goes on, but {store.replicas} of Redis' replicas have not acknowledged it within"
        f" {store.within_s:g} s: a failover now could lose it. Repeat the request with the same Idempotency-Key, which"
        " makes nothing twice; without one, ask for that id first.",
        code=NOT_REPLICATED,
    )


def _lost(name: str) -> EdgeError:
    return StoreUnavailableError(
        f"{name} was lost by a failover of Redis before its replicas had it; send the request again.",
        code=NOT_REPLICATED,
    )
