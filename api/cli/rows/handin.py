"""One batch of rows on its way to the server and back, so that a kill at any moment neither loses nor doubles it.

What is about to be sent is written down first, under a token. The token is in the batch's metadata, and is the request's
Idempotency-Key: a command that finds it written down without a batch looks for a batch that carries it, and sends the same
key again where there is none.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from api.cli import fetch, journey
from api.cli.client import Client
from api.cli.outcome import AwayError, FileError, RefusedError
from api.cli.progress import Progress
from api.cli.rows.answer import Outcome, outcome_of
from api.cli.rows.recipe import ENDPOINT, Item
from api.cli.rows.state import Part, State, answers_beside
from api.cli.view import BatchView, batch_view

METADATA_KEY = "llm_edge_rows"
_PAGE = 100
_SKEW_S = 3600.0
"""How far the clocks of client and server may be apart."""


@dataclass(frozen=True)
class Spool:
    """A batch's input on disk."""

    path: Path
    rows: int
    digest: str


def spool(path: Path, items: Iterable[Item]) -> Spool:
    """Write the items' lines to `path`. Raises FileError."""
    digest, rows = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            path.chmod(0o600)
            for item in items:
                line = item.line
                digest.update(line)
                file.write(line)
                rows += 1
    except OSError as exc:
        raise FileError(f"{path} could not be written: {exc.strerror or exc}.") from exc
    return Spool(path, rows, digest.hexdigest())


class Handin:
    """Sends parts, finds them again, and brings their outcomes into the state."""

    def __init__(self, client: Client, state: State, progress: Progress) -> None:
        self._client = client
        self._state = state
        self._progress = progress

    def send(self, ready: Spool, window: str, metadata: Mapping[str, str]) -> Part:
        """The part, with its batch's id. Raises RefusedError and AwayError; after the latter it may be sent again."""
        part = self._planned(ready, window, metadata)
        try:
            file_id = part.file_id or self._upload(part, ready)
            raw = self._client.create_batch(
                file_id,
                ENDPOINT,
                window,
                {**metadata, METADATA_KEY: part.token},
                idempotency_key=f"{part.token}-{file_id}"[:255],
            )
        except RefusedError:
            self._state.settle(part)
            raise
        return self._created(part, batch_view(raw).id)

    def _planned(self, ready: Spool, window: str, metadata: Mapping[str, str]) -> Part:
        """The part as it was planned before, if it is the very same; else a new plan."""
        what = [self._state.run_id, self._state.next_number, ready.digest, window, sorted(metadata.items())]
        token = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:40]
        before = self._state.open_part()
        if before is not None and before.token == token and before.server == self._client.url:
            return before
        if before is not None and before.file_id is not None:
            with suppress(RefusedError, AwayError):  # nobody will come for it
                self._client.delete_file(before.file_id)
        return self._state.plan(token, self._client.url, ready.rows)

    def _upload(self, part: Part, ready: Spool) -> str:
        size = ready.path.stat().st_size
        file = self._client.upload(
            ready.path, lambda sent: self._progress.uploading(sent, size), idempotency_key=part.token
        )
        file_id = str(file.get("id"))
        self._state.uploaded(part, file_id)
        return file_id

    def _created(self, part: Part, batch_id: str) -> Part:
        self._state.created(part, batch_id)
        found = self._state.open_part()
        assert found is not None  # noqa: S101  just written
        return found

    def find(self, part: Part) -> Part | None:
        """The part with its batch, whose id never reached the state; None where the server has no such batch."""
        after = None
        while True:
            page = self._client.batches(_PAGE, after)
            found = [raw for raw in page.get("data") or [] if isinstance(raw, Mapping)]
            for raw in found:
                if (raw.get("metadata") or {}).get(METADATA_KEY) == part.token:
                    return self._created(part, batch_view(raw).id)
            if not page.get("has_more") or not found:
                return None
            last = batch_view(found[-1])
            if last.created_at < part.planned_at - _SKEW_S:
                return None
            after = last.id

    def settle(self, part: Part, raw: Mapping[str, Any]) -> BatchView:
        """Bring the outcomes of an ended batch into the state."""
        batch = batch_view(raw)
        self._state.settle(part, self._outcomes(batch))
        return batch

    def _outcomes(self, batch: BatchView) -> Iterator[tuple[str, Outcome]]:
        fresh = answers_beside(self._state.path)
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            try:
                fetch.save(self._client, file_id, fresh)
            except RefusedError as exc:
                if exc.http_status != HTTPStatus.NOT_FOUND:
                    raise
                self._progress.note(f"{file_id} is no longer there; its rows are not answered.")
                continue
            with fresh.open("rb") as lines:
                for line in map(json.loads, lines):
                    yield str(line.get("custom_id")), outcome_of(line)

    def wait(self, part: Part) -> Mapping[str, Any]:
        """The part's batch once it has ended."""
        return journey.wait_for_end(self._client, str(part.batch_id), self._progress)
