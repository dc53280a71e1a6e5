"""What is known of a run, beside its output: which rows have their answer, and which batch is on its way. One SQLite file.

`OUT.llm-edge.sqlite`; every change is one transaction, so a killed command leaves it whole. It holds answers, no prompts.
"""

import sqlite3
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from api.cli.outcome import FileError, UsageError
from api.cli.rows.answer import Outcome

VERSION = 1

_SCHEMA = """
create table run (version integer, id text);
create table outcomes (
  key text primary key, answer text, error text, finish_reason text, provider text,
  input_tokens integer, output_tokens integer, cost_usd text
);
create table parts (
  number integer primary key, token text, server text, planned_at real, rows integer, file_id text, batch_id text,
  settled integer default 0
);
"""
_GET = """
select answer, error, finish_reason, provider, input_tokens, output_tokens, cost_usd from outcomes where key = ?
"""
_PUT = """
insert into outcomes (key, answer, error, finish_reason, provider, input_tokens, output_tokens, cost_usd)
values (?, ?, ?, ?, ?, ?, ?, ?)
on conflict do update set
  answer = excluded.answer, error = excluded.error, finish_reason = excluded.finish_reason, provider = excluded.provider,
  input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd
where outcomes.error is not null
"""


@dataclass(frozen=True)
class Part:
    """One batch of the run. `token` is in the batch's metadata; the ids are None until the server has given them."""

    number: int
    token: str
    server: str
    planned_at: float
    rows: int
    file_id: str | None = None
    batch_id: str | None = None


class State:
    """One command at a time holds it. A context manager."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where another command works on it, FileError for a file that is none of ours."""
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
            self._db.execute("pragma locking_mode = exclusive")
            self._db.execute("begin exclusive")  # the lock stays until the file is closed
            if not self._db.execute("select 1 from sqlite_master").fetchone():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("insert into run values (?, ?)", (VERSION, uuid.uuid4().hex))
            version, self.run_id = self._db.execute("select version, id from run").fetchone()
            self._db.execute("commit")
            self._db.execute("create temp table seen (name text primary key, n integer) without rowid")
        except sqlite3.OperationalError as exc:
            if "locked" in str(exc):
                raise UsageError(f"Another llm-edge is at work on this output ({path} is locked).") from exc
            raise FileError(f"{path}: {exc}.") from exc
        except sqlite3.DatabaseError as exc:
            raise FileError(f"{path} is no state of llm-edge ({exc}); move it away to begin anew.") from exc
        if version != VERSION:
            raise FileError(f"{path} is of another version of llm-edge; move it away to begin anew.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(sqlite3.Error, OSError):
            untouched = self._db.execute("select count(*) from parts").fetchone() == (0,)
            self._db.close()
            if untouched:  # nothing was ever planned: leave no file behind
                self.path.unlink()

    def new_pass(self) -> None:
        """The table is about to be gone through from its first row."""
        self._db.execute("delete from seen")

    def occurrence(self, name: str) -> int:
        """How often this pass has asked for the name, this time included."""
        row = self._db.execute(
            "insert into seen values (?, 1) on conflict do update set n = n + 1 returning n", (name,)
        ).fetchone()
        return int(row[0])

    def outcome(self, key: str) -> Outcome | None:
        row = self._db.execute(_GET, (key,)).fetchone()
        return None if row is None else Outcome(*row)

    def answered(self, key: str) -> bool:
        found = self._db.execute("select 1 from outcomes where key = ? and error is null", (key,))
        return found.fetchone() is not None

    def open_part(self) -> Part | None:
        """The batch that is planned or under way."""
        row = self._db.execute(
            "select number, token, server, planned_at, rows, file_id, batch_id from parts where not settled"
        ).fetchone()
        return None if row is None else Part(*row)

    @property
    def next_number(self) -> int:
        """That of the open part; else of the one to come."""
        row = self._db.execute("select count(*) + 1 from parts where settled").fetchone()
        return int(row[0])

    def plan(self, token: str, server: str, rows: int) -> Part:
        """Write down what is about to be sent; in the place of what was planned before and never became a batch."""
        part = Part(self.next_number, token, server, time.time(), rows)
        self._db.execute("insert or replace into parts values (?, ?, ?, ?, ?, ?, ?, 0)", astuple(part))
        return part

    def uploaded(self, part: Part, file_id: str) -> None:
        self._db.execute("update parts set file_id = ? where number = ?", (file_id, part.number))

    def created(self, part: Part, batch_id: str) -> None:
        self._db.execute("update parts set batch_id = ? where number = ?", (batch_id, part.number))

    def settle(self, part: Part, outcomes: Iterable[tuple[str, Outcome]] = ()) -> None:
        """All at once: what came of the part's rows, and that it is done with. An answer is never replaced."""
        self._db.execute("begin")
        try:
            self._db.executemany(_PUT, ((key, *astuple(outcome)) for key, outcome in outcomes))
            self._db.execute("update parts set settled = 1 where number = ?", (part.number,))
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")


def spool_beside(state: Path) -> Path:
    """A batch's input while it is on its way up."""
    return state.with_name(f"{state.name}.part")


def answers_beside(state: Path) -> Path:
    """A batch's answers while they are brought into the state."""
    return state.with_name(f"{state.name}.answers")


def state_beside(output: Path) -> Path:
    """`out.csv.llm-edge.sqlite` for `out.csv`."""
    return output.with_name(f"{output.name}.llm-edge.sqlite")
