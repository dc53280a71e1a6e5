"""The composition root of a worker process: every part is made here, once, and handed down."""

import importlib.metadata
import threading
import time

from celery import Celery

from shared.broker import Hint, Hints, process_id
from shared.catalogue import Catalogue
from shared.config import Settings
from shared.fleet_file import FleetFile
from shared.fleet_watch import FleetWatch
from shared.housekeeper import Housekeeper, Stores
from shared.jobs import Finished, WorkerRecord
from shared.logs import get_logger
from shared.lone import LONE
from shared.newer import NewerSeen
from shared.prices import warm
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_room import room_reader
from shared.room_watch import WORKER_AGE_S, RoomWatch
from shared.versions import VERSION
from workers.calls import Calls, Lane
from workers.gatekeeper import Gatekeeper
from workers.lag import Lag
from workers.leases import BEAT_S, Leases
from workers.shard import Parts, Retry, run_lone, run_shard
from workers.strategies.custom import load_strategies
from workers.transport import Transport
from workers.upstreams import Upstreams
from workers.writer import Writer

_log = get_logger(__name__)


class Runtime:
    """One worker's parts, from start to stop."""

    def __init__(self, settings: Settings, app: Celery, pool: str) -> None:
        self.settings = settings
        self._pool = pool
        self._holder = process_id()
        self._started_at = time.time()
        client = connect(settings.redis, role="worker", max_connections=settings.concurrency + 32)
        newer = NewerSeen()
        self._ledger = RedisLedger(client, settings.key_prefix, newer)
        lone = RedisLone(client, settings.key_prefix, newer)
        files = RedisFiles(client, settings.key_prefix)
        self._fleet = FleetFile.of(settings, _prepare)
        self._calls = Calls(settings.concurrency)
        self._transport = Transport(concurrency=settings.concurrency)
        self._writer = Writer(self._ledger, lone, self._holder, self._after_write)
        brief = connect(settings.redis, role="gate", max_connections=4)  # calls wait for it before they begin
        gate = RedisGate(brief, settings.key_prefix)
        self._gatekeeper = Gatekeeper(
            gate,
            lambda: self._fleet.current.breaker,
            self._holder,
            places=settings.concurrency // 2,
            adaptive=lambda: self._fleet.current.adaptive_concurrency,
        )
        self._upstreams = Upstreams(
            lambda: self._fleet.current, self._transport, gate, self._gatekeeper, self._gatekeeper.now
        )
        self._leases = Leases(self._ledger, settings.lease_s, self._record, self._beside)
        self._watch = FleetWatch(self._fleet, self._leases.nudge)
        self._hints = Hints(app)
        self._lag = Lag()
        room = RoomWatch(room_reader(brief), WORKER_AGE_S)
        self._housekeeper = Housekeeper(
            Stores(self._ledger, lone, files),
            self._hints,
            settings,
            lambda: self._fleet.current,
            self._holder,
            room,
        )
        self._parts = Parts(
            ledger=self._ledger,
            lone=lone,
            files=files,
            calls=self._calls,
            writer=self._writer,
            leases=self._leases,
            upstream=self._upstreams,
            now=self._gatekeeper.now,
            catalogue=lambda: self._fleet.current,
            room=room,
            stopping=threading.Event(),
            holder=self._holder,
            lease_s=settings.lease_s,
        )

    def start(self) -> None:
        self._hints.warm()
        self._lag.start()
        self._gatekeeper.start(self._upstreams.heard, self._upstreams.views.heard)
        self._calls.start()
        self._writer.start()
        self._leases.start()
        self._watch.start()
        self._parts.lone.decline()  # a hint that was sent, or spared, while nobody was here
        self._housekeeper.start()
        self._housekeeper.nudge(hungry=True)
        _log.info(
            "worker_started", worker=self._holder, pool=self._pool, concurrency=self.settings.concurrency
        )

    def begin_stop(self) -> None:
        """Calls in flight finish; what has not started is handed back. Nothing here waits: a signal handler calls it."""
        self._parts.stopping.set()
        self._leases.leave()

    def stop(self) -> None:
        self.begin_stop()
        self._watch.stop()
        self._writer.stop()
        self._leases.stop()
        self._housekeeper.stop()
        self._calls.stop()
        self._gatekeeper.stop()
        self._lag.stop()
        self._transport.close()
        _log.info("worker_stopped", worker=self._holder)

    def run_shard(self, hint: Hint, lane: Lane, retry: Retry) -> bool:
        if hint.ref == LONE:
            return run_lone(self._parts, retry, self._housekeeper.hint_lone)
        return run_shard(hint.ref, lane, self._parts, retry)

    def _after_write(self, batch_id: str, finished: Finished) -> None:
        for segment in finished.segments:
            self._housekeeper.roll_up(batch_id, segment)
        if finished.hungry and not self._parts.stopping.is_set():
            self._housekeeper.nudge(hungry=True)
        if not finished.open:
            self._housekeeper.nudge()

    def _beside(self) -> None:
        """With every beat."""
        self._upstreams.look_for_mended()
        self._upstreams.bring_forward(self._gatekeeper.early(min(BEAT_S, self.settings.lease_s / 3)))

    def _record(self) -> WorkerRecord:
        return WorkerRecord(
            id=self._holder,
            pool=self._pool,
            concurrency=self._calls.size,
            capacity=3 * self._calls.batch_size,
            version=importlib.metadata.version("llm-edge-agent"),
            started_at=self._started_at,
            in_flight=self._gatekeeper.in_flight(),
            providers_file=self._fleet.state,
            loop_lag_s=self._lag.take(),
            reads=VERSION,
        )


def _prepare(catalogue: Catalogue) -> None:
    """What no job is to wait for, or to find out: list prices are read, a user's own strategies imported. Raises ConfigError."""
    load_strategies(catalogue.routing)
    warm(catalogue.providers)
