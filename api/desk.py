"""Takes lone jobs in and brings how they ended to the callers who wait.

Requests that come while one store call is under way are submitted together in the next: a busy process makes few
calls, an idle one waits for nobody.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec

from shared.broker import Hints
from shared.errors import NO_ROOM, KeyReusedError, StoreUnavailableError
from shared.logs import get_logger
from shared.lone import LONE, LoneJobs, NewJob, Parked, Reply
from shared.room_watch import RoomWatch

MOST = 128
MOST_BYTES = 8 * 1024 * 1024
_ASK_S = 2.0
"""How often the ledger is asked about jobs of which nothing was heard."""

_AT_ONCE_S = 0.2
"""A call that fails sooner, on a connection that broke, is repeated; with a slow one the callers have waited enough."""

_log = get_logger(__name__)


Heard = str | Parked
"""What is heard of a job: its result line, or what it waits for."""

_parked = msgspec.json.Decoder(Parked)


class Taken(msgspec.Struct, frozen=True):
    """The job that a request got: another than its own where its key has made one before.

    `at` is when it was taken in; None where it was there before.
    """

    id: str
    at: float | None


class _Entry(msgspec.Struct, frozen=True):
    job: NewJob
    done: "asyncio.Future[Taken]"


class Desk:
    """One per API process; `name` is the process' id among all. `submit` and `expect` belong to the event loop."""

    def __init__(self, lone: LoneJobs, hints: Hints, name: str, room: RoomWatch) -> None:
        self.name = name
        self._lone = lone
        self._hints = hints
        self._room = room
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._waiting: dict[str, set[asyncio.Future[Heard]]] = {}
        self._in_store: set[str] = set()  # of those waited for: about the others the store knows nothing yet
        self._strays: deque[str] = deque()
        self._asked = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinting = ThreadPoolExecutor(1, thread_name_prefix="hints")
        self._thread = threading.Thread(target=self._take_in, name="desk", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hinting.submit(self._hints.warm)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._entries.put(None)
        self._thread.join(timeout_s)
        self._hinting.shutdown(wait=False, cancel_futures=True)

    async def submit(self, job: NewJob) -> Taken:
        """Raises StoreUnavailableError, and KeyReusedError where the job's key came with another request before."""
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._entries.put(_Entry(job, done))
        taken = await done
        if not taken.id:
            raise KeyReusedError
        if taken.id in self._waiting:
            self._in_store.add(taken.id)
        return taken

    def expect(self, job_id: str, *, in_store: bool = False) -> "asyncio.Future[Heard]":
        """Its result line once it has ended, empty where it ended without a call; or what it waits for, where it is parked.

        Call it before the job is submitted.
        """
        future: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        if in_store:
            self._in_store.add(job_id)
        future.add_done_callback(lambda _: self._forget(job_id, future))
        return future

    def _forget(self, job_id: str, future: "asyncio.Future[Heard]") -> None:
        others = self._waiting.get(job_id)
        if others is not None:
            others.discard(future)
            if not others:
                del self._waiting[job_id]
                self._in_store.discard(job_id)

    def waited_for(self, job_id: str) -> bool:
        return job_id in self._waiting

    # in the desk's thread

    def _take_in(self) -> None:
        while group := self._gather():
            try:
                taken = self._submit([entry.job for entry in group])
            except StoreUnavailableError as exc:
                if exc.code != NO_ROOM:  # then it is certain that nothing was taken in
                    # one with a key goes on if it was taken in after all: its caller comes back for it
                    self._strays += [entry.job.spec.id for entry in group if entry.job.once is None]
                self._on_loop(_refuse, [*group, *self._queued()], exc)
            except Exception as exc:  # noqa: BLE001  an edge: one request must not keep the others from being taken in
                _log.exception("submit_failed", jobs=len(group))
                self._on_loop(_refuse, group, exc)
            else:
                self._on_loop(_accept, group, taken)

    def _gather(self) -> list[_Entry]:
        """What is waiting, up to MOST jobs or MOST_BYTES; nothing where it is time to end."""
        group: list[_Entry] = []
        size = 0
        entry = self._entries.get()
        while entry is not None:
            group.append(entry)
            size += len(entry.job.body)
            if len(group) >= MOST or size >= MOST_BYTES:
                break
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                self._entries.put(None)  # this group first
        return group

    def _queued(self) -> list[_Entry]:
        """Those that came while the store did not answer: they are told at once, instead of finding it out one by one."""
        found: list[_Entry] = []
        with suppress(queue.Empty):
            while (entry := self._entries.get_nowait()) is not None:
                found.append(entry)
            self._entries.put(None)
        return found

    def _submit(self, jobs: list[NewJob]) -> list[Taken]:
        """Submitting is safe to repeat by the ids: a lost answer must not leave jobs that their callers do not know of."""
        started = time.monotonic()
        self._room.check(jobs=len(jobs), size=sum(len(job.body) for job in jobs))
        try:
            submitted, again = self._lone.submit(jobs), False
        except StoreUnavailableError as exc:
            if exc.code == NO_ROOM or time.monotonic() - started > _AT_ONCE_S:
                raise
            submitted, again = self._lone.submit(jobs), True
        if submitted.hint or again:
            self._hinting.submit(self._hints.send, [LONE])
        return [
            Taken(submitted.others.get(n, job.spec.id), None if known and not again else submitted.at)
            for n, (job, known) in enumerate(zip(jobs, submitted.known, strict=True))
        ]

    def _on_loop(self, act: Callable[..., None], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *args)

    # in the thread that hears replies

    def heard(self, replies: list[Reply]) -> None:
        self._on_loop(self._deliver, replies)

    def tick(self, anew: bool) -> None:  # noqa: FBT001  RedisReplies' signature
        """Ask about jobs of which nothing was heard: what was published while the connection was away is lost."""
        if not anew and time.monotonic() - self._asked < _ASK_S:
            return
        self._asked = time.monotonic()
        waiting = list(self._in_store)
        try:
            while self._strays:  # callers of these were told that nothing was taken in
                if not self.waited_for(self._strays[0]):  # else the request has come again, and found it
                    self._lone.leave(self._strays[0], self.name, cancel=True)
                self._strays.popleft()
            ended = self._lone.ended(waiting) if waiting else []
        except StoreUnavailableError as exc:
            _log.warning("store_away", error=exc.message)
            return
        self._on_loop(self._deliver, [Reply(job_id, "") for job_id in ended])

    def tell_unbegun(self, why: Parked) -> None:
        """What keeps the jobs that no worker has had yet from being begun; nothing while the store does not answer."""
        waiting = list(self._in_store)
        try:
            unbegun = self._lone.unbegun(waiting) if waiting else []
        except StoreUnavailableError as exc:
            _log.warning("store_away", error=exc.message)
            return
        parked = msgspec.json.encode(why).decode()
        self._on_loop(self._deliver, [Reply(job_id, "", parked) for job_id in unbegun])

    # in the event loop

    def _deliver(self, replies: list[Reply]) -> None:
        for reply in replies:
            for future in tuple(self._waiting.get(reply.id, ())):
                if not future.done():
                    future.set_result(_parked.decode(reply.parked) if reply.parked else reply.line)


def _accept(group: list[_Entry], taken: list[Taken]) -> None:
    for entry, found in zip(group, taken, strict=True):
        if not entry.done.done():
            entry.done.set_result(found)


def _refuse(group: list[_Entry], exc: Exception) -> None:
    for entry in group:
        if not entry.done.done():
            entry.done.set_exception(exc)
