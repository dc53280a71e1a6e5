"""Records that ledger tests are made of."""

import struct

from shared.ids import new_batch_id, new_file_id
from shared.jobs import BatchSpec, Claim, Outcome, Usage, WorkerRecord


def spec(**changes: object) -> BatchSpec:
    fields: dict[str, object] = {
        "id": new_batch_id(),
        "owner": "default",
        "endpoint": "/v1/chat/completions",
        "input_file_id": new_file_id(),
        "input_chunks": 1,
        "completion_window": "24h",
        "window_s": 86400.0,
        "retention_s": 3600.0,
        "output_file_id": new_file_id(),
        "error_file_id": new_file_id(),
    }
    return BatchSpec(**{**fields, **changes})  # type: ignore[arg-type]


def worker(name: str = "w1", capacity: int = 10_000) -> WorkerRecord:
    return WorkerRecord(
        id=name, pool="gevent", concurrency=64, capacity=capacity, version="0", started_at=0.0
    )


def index(total: int) -> bytes:
    return b"".join(struct.pack(">II", 10 * i, 9) for i in range(total))


def outcome(job: int, *, ok: bool = True, claim: Claim | None = None, **changes: object) -> Outcome:
    fields: dict[str, object] = {
        "index": job,
        "ok": ok,
        "line": f"line {job}\n".encode(),
        "provider": "p1",
        "usage": Usage(input_tokens=10, output_tokens=5, cached_tokens=2, reasoning_tokens=1),
        "cost_nanos": 7,
        "ref": claim.ref if claim else "",
        "token": claim.token if claim else 0,
    }
    return Outcome(**{**fields, **changes})  # type: ignore[arg-type]
