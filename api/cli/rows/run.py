"""A run over rows, step by step: take up what is on its way, look, ask, send what is missing, join."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from itertools import groupby
from typing import Any

from api.cli.client import Client
from api.cli.outcome import AwayError, Exit, FileError, RefusedError, UsageError
from api.cli.progress import Progress
from api.cli.rows.answer import NOT_RUN, NOTHING_TO_ASK, Outcome
from api.cli.rows.asked import Asked
from api.cli.rows.columns import cells
from api.cli.rows.cut import Cut
from api.cli.rows.handin import Handin, spool
from api.cli.rows.recipe import Item
from api.cli.rows.sink import check_format, open_sink, replaced
from api.cli.rows.source import Source, open_source
from api.cli.rows.state import Part, State, answers_beside, spool_beside, state_beside
from api.cli.rows.survey import Survey, items_of, survey
from api.cli.view import BatchView, batch_view, money
from api.cli.words import count


@dataclass
class Joined:
    """What stands in the output. `cost_usd` is None as soon as one answer's price is unknown."""

    rows: int = 0
    answered: int = 0
    failed: int = 0
    blank: int = 0
    not_run: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)

    def add(self, outcome: Outcome) -> None:
        self.rows += 1
        self.answered += outcome.answered
        self.blank += outcome is NOTHING_TO_ASK
        self.not_run += outcome is NOT_RUN
        self.failed += not outcome.answered and outcome not in {NOTHING_TO_ASK, NOT_RUN}
        self.input_tokens += outcome.input_tokens or 0
        self.output_tokens += outcome.output_tokens or 0
        if outcome.answered:
            cost = money(outcome.cost_usd)
            self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost


@dataclass
class Ended:
    """How a run ended. `sent`: rows that this command has handed in. `stopped_by`: the batch that did not complete."""

    joined: Joined = field(default_factory=Joined)
    sent: int = 0
    batches: list[str] = field(default_factory=list)
    stopped_by: BatchView | None = None

    @property
    def exit(self) -> Exit:
        if self.stopped_by is not None or self.joined.not_run:
            return Exit.NOT_RUN
        return Exit.REFUSED if self.joined.failed else Exit.COMPLETED


@dataclass(frozen=True)
class Talk:
    """How a run speaks with its user. `agree` raises CommandError where the answer is no."""

    progress: Progress
    agree: Callable[[Survey], None]
    goes_on: Callable[[str], None]
    """Called with the id of a batch that runs whether or not anyone waits for it."""


def run(client: Client, asked: Asked, talk: Talk) -> Ended:
    """The output is written whole at the end, or not at all. Raises CommandError of all kinds; the same call goes on."""
    asked.check()
    check_format(asked.output)
    source = open_source(asked.file, asked.reading)
    if asked.id_column is not None and source.columns and asked.id_column not in source.columns:
        raise UsageError(f"--id-column {asked.id_column!r}: {asked.file} has no such column.")
    path = state_beside(asked.output)
    try:
        with State(path) as state:
            try:
                return _Run(client, asked, talk, source, state).run()
            finally:  # of this command, or of one that was killed
                for scratch in (spool_beside(path), answers_beside(path)):
                    scratch.unlink(missing_ok=True)
    except sqlite3.Error as exc:
        raise FileError(f"{path}: {exc}. Is the disk full? The same command goes on.") from exc


class _Run:
    def __init__(self, client: Client, asked: Asked, talk: Talk, source: Source, state: State) -> None:
        self._client = client
        self._asked = asked
        self._talk = talk
        self._source = source
        self._state = state
        self._handin = Handin(client, state, talk.progress)
        self._ended = Ended()

    def run(self) -> Ended:
        found = survey(self._asked, self._source, self._state)  # before anything is asked of the server
        if self._take_up():
            found = survey(self._asked, self._source, self._state)
        if found.to_send and not self._asked.partial and self._ended.stopped_by is None:
            self._talk.agree(found)
            with self._talk.progress:
                self._send(found.parts)
        self._join()
        return self._ended

    def _take_up(self) -> bool:
        """Wait for the batch that an earlier command has left, and keep what came of it. False where nothing came."""
        try:
            part = self._under_way()
            raw = None if part is None else self._look(part)
        except AwayError as exc:
            if not self._asked.partial:
                raise
            self._talk.progress.note(f"{exc.message} Writing what is here.")
            return False
        if part is None or raw is None:
            return False
        batch = batch_view(raw)
        if batch.ended:
            self._settle(part, raw, quietly=True)
        elif self._asked.partial:
            self._talk.progress.note(f"{batch.id} is still {batch.status}: {batch.progress}.")
        else:
            rows = count(part.rows, "row")
            self._talk.progress.note(
                f"{batch.id} ({rows}) is under way from an earlier command; waiting for it."
            )
            with self._talk.progress:
                self._finish(part)
        return True

    def _under_way(self) -> Part | None:
        """The batch that an earlier command has handed in and not seen to its end, whether or not it knew the id."""
        part = self._state.open_part()
        if part is None or part.batch_id is not None:
            return part
        if part.file_id is not None and part.server != self._client.url:
            raise UsageError(
                f"A batch for this output is on its way at {part.server}, not at {self._client.url}: go on there"
                " (LLM_EDGE_URL), or give this run another output."
            )
        return self._handin.find(part)

    def _look(self, part: Part) -> Mapping[str, Any] | None:
        """The part's batch; None where the server that took it has lost it. Raises UsageError where this is another server."""
        try:
            return self._client.batch(str(part.batch_id))
        except RefusedError as exc:
            if exc.http_status != HTTPStatus.NOT_FOUND:
                raise
            if part.server == self._client.url:
                self._talk.progress.note(
                    f"{part.batch_id} is not known to {part.server} any more; its rows are sent anew."
                )
                self._state.settle(part)
                return None
            raise UsageError(
                f"{part.batch_id}, on its way for this output, is at {part.server}, not at {self._client.url}: go on"
                " there (LLM_EDGE_URL), or give this run another output."
            ) from exc

    def _send(self, parts: int) -> None:
        """All rows without an answer, a batch at a time, each from its own pass over the next rows."""
        path = spool_beside(self._state.path)
        cut = Cut(self._asked.part_rows)
        for number, part in groupby(self._missing(), lambda item: cut.part_of(len(item.line))):
            ready = spool(path, part)
            sent = self._handin.send(ready, self._asked.window, self._asked.metadata)
            which = f" ({number} of {parts})" if parts > 1 else ""
            self._talk.progress.note(f"{sent.batch_id} created from {count(ready.rows, 'row')}{which}")
            self._ended.sent += ready.rows
            self._finish(sent)
            if self._ended.stopped_by is not None:
                return

    def _missing(self) -> Iterator[Item]:
        for item in items_of(self._asked, self._source, self._state):
            if item.key is not None and not self._state.answered(item.key):
                yield item

    def _finish(self, part: Part) -> None:
        self._talk.goes_on(str(part.batch_id))
        self._settle(part, self._handin.wait(part))

    def _settle(self, part: Part, raw: Mapping[str, Any], *, quietly: bool = False) -> None:
        """`quietly`: how a batch ended before this command began stops nothing; its unanswered rows are sent anew."""
        batch = self._handin.settle(part, raw)
        self._ended.batches.append(batch.id)
        if batch.status != "completed" and not quietly:
            self._ended.stopped_by = batch

    def _join(self) -> None:
        asked = self._asked
        with (
            replaced(asked.output) as fresh,
            open_sink(fresh, asked.output, self._source, asked.prefix) as sink,
        ):
            for item in items_of(asked, self._source, self._state):
                outcome = NOTHING_TO_ASK if item.key is None else self._state.outcome(item.key) or NOT_RUN
                self._ended.joined.add(outcome)
                sink.write(item.row, cells(outcome, asked.prefix))
            sink.close()
