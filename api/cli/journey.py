"""A batch's way as a client walks it: hand in, wait, fetch. The commands and the demo share it."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli.client import Client
from api.cli.outcome import AwayError, FaultyInputError, FileError, RefusedError, UsageError
from api.cli.progress import Progress
from api.cli.view import batch_view
from api.cli.words import duration

_MOST_LINE_BYTES = 16 * 1024 * 1024
_MOST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Submission:
    """What is to become a batch. Without `endpoint` the file's first line tells it. `max_cost` in US dollars."""

    file: Path
    window: str = "24h"
    endpoint: str | None = None
    metadata: Mapping[str, str] | None = None
    max_cost: str | None = None


@dataclass(frozen=True)
class Polling:
    """Seconds between two looks at a batch: `first_s`, then half as much again each time, up to `most_s`.

    `patience_s`: how long the server may be away before that is an error.
    """

    first_s: float = 0.2
    most_s: float = 2.0
    patience_s: float = 300.0
    growth: float = 1.5


def submit(client: Client, wanted: Submission, progress: Progress) -> dict[str, Any]:
    """Upload the file and create the batch; the batch object.

    Raises FaultyInputError where the file's first line names no endpoint, and what Client raises.
    """
    endpoint = wanted.endpoint or endpoint_of(wanted.file)
    size = wanted.file.stat().st_size
    file = client.upload(wanted.file, lambda sent: progress.uploading(sent, size))
    try:
        return client.create_batch(
            str(file.get("id")), endpoint, wanted.window, wanted.metadata, max_cost=wanted.max_cost
        )
    except RefusedError:
        with suppress(RefusedError, AwayError):  # nobody will come for it
            client.delete_file(str(file.get("id")))
        raise
    except AwayError as exc:
        if exc.answered:
            raise
        raise AwayError(f"{exc.message} `llm-edge batch list` shows whether the batch was created.") from exc


def endpoint_of(file: Path) -> str:
    """The `url` of the file's first line. Raises FaultyInputError, or FileError where it cannot be read."""
    try:
        with file.open("rb") as lines:
            line = lines.readline(_MOST_LINE_BYTES)
            while line and not line.strip():
                line = lines.readline(_MOST_LINE_BYTES)
    except OSError as exc:
        raise FileError(f"{file}: {os.strerror(exc.errno or 0)}") from exc
    if not line:
        raise FaultyInputError(f"{file} has no lines; put one request on each line.")
    try:
        first = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        first = None
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(url, str):
        raise FaultyInputError(
            f"{file}: the first line is no request. Each line must be a JSON object with custom_id, method,"
            " url and body, for example"
            ' {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}.'
        )
    return url


def wait_for_end(
    client: Client,
    batch_id: str,
    progress: Progress,
    polling: Polling = Polling(),
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Look at the batch until it has ended; its object then.

    A server that is away for a moment is said once and borne. Raises AwayError after `patience_s`, RefusedError at once.
    """
    pause_s = polling.first_s
    away_since_s: float | None = None
    said = False
    while True:
        wait_s = pause_s
        try:
            raw = client.batch(batch_id, patient=False)
        except AwayError as exc:
            now_s = time.monotonic()
            if away_since_s is None:
                away_since_s = now_s
            elif not said:  # a single miss, such as a connection closed while idle, is not worth a word
                said = True
                progress.note(f"{exc.message} Still waiting; trying for {duration(polling.patience_s)}.")
            if now_s - away_since_s >= polling.patience_s:
                raise
            wait_s = min(max(pause_s, exc.retry_after_s or 0.0), _MOST_PAUSE_S)
        else:
            if said:
                progress.note("The server answers again.")
            away_since_s, said = None, False
            batch = batch_view(raw)
            progress.update(batch)
            if batch.ended:
                return raw
        sleep(wait_s)
        pause_s = min(pause_s * polling.growth, polling.most_s)


def metadata_of(pairs: list[str]) -> dict[str, str]:
    """From `key=value` words. Raises UsageError."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--metadata {pair!r}: write it as key=value.")
        found[key] = value
    return found
