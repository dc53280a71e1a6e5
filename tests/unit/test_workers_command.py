"""What `llm-edge workers` shows, from whatever a server says."""

import io
from typing import Any

from rich.console import Console

from api.cli.workers import row, table
from api.worker_schema import WorkerList, WorkerObject
from shared.jobs import FileState, WorkerRecord

NOW = 1000.0


def told(**more: Any) -> dict[str, Any]:
    record = WorkerRecord(
        id="host-1-abc",
        pool="gevent",
        concurrency=64,
        capacity=51,
        version="0.1.0",
        started_at=NOW - 125,
        in_flight={"b": 2, "a": 1},
        loop_lag_s=0.01234,
        heard_at=NOW - 0.5,
        **more,
    )
    return WorkerObject.of(record).model_dump(mode="json")


def text(page: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(table(page, NOW))
    return out.getvalue()


def test_a_worker_is_a_row() -> None:
    worker = told(providers_file=FileState(version="0123456789ab"))
    assert worker["providers"] == {"a": 1, "b": 2}
    shown = row(worker, NOW)
    assert shown[:3] == ["host-1-abc", "gevent", "0.1.0"]
    assert shown[3:] == ["3", "64", "12 ms", "2 min 5 s", "0.5 s ago", "0123456789ab"]


def test_a_refused_providers_file_is_told() -> None:
    worker = told(providers_file=FileState(version="0123456789ab", fault="providers.yaml: no"))
    assert row(worker, NOW)[-1] == "0123456789ab: what lies there now is refused: providers.yaml: no"


def test_without_workers_it_says_how_to_start_one() -> None:
    page = WorkerList(data=[]).model_dump(mode="json")
    assert "llm-edge worker" in text(page)
    assert "host-1-abc" in text({"data": [told()]})


def test_what_a_server_leaves_out_is_no_error() -> None:
    assert row({}, NOW)[0] == "None"
