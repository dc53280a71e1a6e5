"""Every record that is encoded in Redis: its type, the keys it stands under, and one that uses all its fields."""

from typing import Any

import msgspec

from shared.breaker import Circuit, State
from shared.condition import Condition, CoolDown, LastError, Refusal
from shared.files import FileRecord
from shared.jobs import ApiRecord, BatchSpec, Fault, FileState, History, Try, WorkerRecord
from shared.lone import LoneSpec, Parked, Reply
from shared.routing_asked import RoutingAsked
from shared.tokens import Learned
from shared.window import Window

AT = 1_800_000_000.25


class Kept(msgspec.Struct, frozen=True):
    """`keys` as the table in shared/keys.py names them."""

    type: Any
    keys: tuple[str, ...]
    example: Any


_WAITS = Parked(reason="breaker_open", provider="openai", since=AT, until=AT + 30, jobs=1, lasts_s=30.0)

RECORDS: dict[str, Kept] = {
    "batch_spec": Kept(
        BatchSpec,
        ("b:ID",),
        BatchSpec(
            id="batch_a",
            owner="team-a",
            endpoint="/v1/chat/completions",
            input_file_id="file-a",
            input_chunks=3,
            completion_window="24h",
            window_s=86400.0,
            retention_s=2592000.0,
            output_file_id="file-b",
            error_file_id="file-c",
            lines=200,
            metadata={"project": "x"},
            routing=RoutingAsked(strategy="failover", providers=("openai",), models=("gpt-4o-mini",)),
            max_cost_nanos=2_500_000_000,
            output_expires_after_s=3600,
        ),
    ),
    "faults": Kept(
        tuple[Fault, ...],
        ("b:ID",),
        (Fault(code="invalid_json_line", message="no JSON", line=3, param="body"),),
    ),
    "history": Kept(
        History,
        ("b:ID:at", "j:ID"),
        History(
            attempts=2,
            faults=2,
            since=AT,
            tried=("openai", "azure"),
            parked=1,
            tries=(Try("openai", 503, "provider_failed", 0.25, charged=True, at=AT),),
        ),
    ),
    "lone_spec": Kept(
        LoneSpec,
        ("j:ID",),
        LoneSpec(
            id="job_a",
            owner="team-a",
            endpoint="/v1/chat/completions",
            model="gpt-4o-mini",
            fingerprint="f00d",
            window_s=86400.0,
            retention_s=3600.0,
            delivered_retention_s=60.0,
        ),
    ),
    "file": Kept(
        FileRecord,
        ("f:ID, f:ID:c, f:ID:p",),
        FileRecord(
            id="file-a",
            owner="team-a",
            filename="input.jsonl",
            purpose="batch",
            bytes=1000,
            created_at=int(AT),
            expires_at=int(AT) + 3600,
            chunks=1,
            chunk_bytes=65536,
            lines=200,
        ),
    ),
    "worker": Kept(
        WorkerRecord,
        ("alive, workers",),
        WorkerRecord(
            id="host-1-abc",
            pool="gevent",
            concurrency=64,
            capacity=153,
            version="1.0",
            started_at=AT,
            in_flight={"openai": 3},
            providers_file=FileState(version="abc", loaded_at=AT, fault="no such strategy"),
            loop_lag_s=0.001,
            reads=1,
        ),
    ),
    "api": Kept(
        ApiRecord,
        ("apis",),
        ApiRecord(id="host-2-abc", providers_file=FileState(version="abc", loaded_at=AT, fault=None)),
    ),
    "condition": Kept(
        Condition,
        ("pv:PROVIDER",),
        Condition(
            disabled=True,
            drain_since=AT,
            calls=10,
            failures=2,
            consecutive_failures=1,
            success_rate=0.9,
            latency_s=0.5,
            latest_s=0.4,
            per_token_s=0.01,
            answered_at=AT,
            last_error=LastError(code="provider_failed", message="503", at=AT),
            breakers={
                "openai": Circuit(
                    state=State.HALF_OPEN,
                    failures=5,
                    successes=1,
                    openings=2,
                    until=AT + 30,
                    since=AT,
                    generation=4,
                    reason="503",
                    probes={"p1": AT},
                    window={"30000000": (10, 2)},
                )
            },
            cool_downs={"openai": CoolDown(until=AT, times=2)},
            refusals={"key:abc": Refusal(code="provider_key_refused", message="401", since=AT, probe_at=AT)},
            windows={"openai": Window(cut_at=AT, size=12.5, best_s=0.3)},
            tokens={"gpt-4o-mini": Learned(10, 100.0, 110.0, 20.0)},
        ),
    ),
    "reply": Kept(
        Reply,
        ("replies:PROCESS",),
        Reply("job_a", '{"id": "x"}', msgspec.json.encode(_WAITS).decode()),
    ),
    "parked": Kept(Parked, ("replies:PROCESS",), _WAITS),
}
