"""The HTTP face of workers: each as its last heartbeat told."""

from typing import Literal

from pydantic import BaseModel

from shared.jobs import WorkerRecord


class WorkerObject(BaseModel):
    """`concurrency` calls at a time at most, of which `in_flight` are under way, by provider.

    `loop_lag_s`: how late it ran what was due, at worst since the heartbeat before. `reads`: the newest version
    of records that it can run. Times in Unix seconds.
    """

    id: str
    object: Literal["worker"] = "worker"
    pool: str
    version: str
    reads: int
    concurrency: int
    in_flight: int
    providers: dict[str, int]
    loop_lag_s: float
    started_at: int
    heard_at: float
    providers_file: str | None
    providers_file_fault: str | None

    @classmethod
    def of(cls, record: WorkerRecord) -> "WorkerObject":
        return cls(
            id=record.id,
            pool=record.pool,
            version=record.version,
            reads=record.reads,
            concurrency=record.concurrency,
            in_flight=sum(record.in_flight.values()),
            providers=dict(sorted(record.in_flight.items())),
            loop_lag_s=round(record.loop_lag_s, 4),
            started_at=int(record.started_at),
            heard_at=round(record.heard_at, 3),
            providers_file=record.providers_file.version or None,
            providers_file_fault=record.providers_file.fault,
        )


class WorkerList(BaseModel):
    """Those that have been heard from within six seconds, the oldest first."""

    object: Literal["list"] = "list"
    data: list[WorkerObject]
