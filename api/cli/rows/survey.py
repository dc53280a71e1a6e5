"""The first look at a table: what is there, what is answered already, what would be sent and what that may cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from api.cli.rows.asked import Asked
from api.cli.rows.columns import check_clash
from api.cli.rows.cut import Cut
from api.cli.rows.recipe import Item, Row, items
from api.cli.rows.source import Source
from api.cli.rows.state import State
from api.cli.rows.template import check_columns
from shared.tokens import messages_tokens


@dataclass
class Survey:
    """Counts of rows; `tokens` is an estimate of the input of what is to be sent; `first` is the first of it."""

    rows: int = 0
    answered: int = 0
    blank: int = 0
    again: int = 0
    """Of what is to be sent: rows that have failed before."""
    to_send: int = 0
    parts: int = 0
    tokens: int = 0
    first: Item | None = None


def items_of(asked: Asked, source: Source, state: State) -> Iterator[Item]:
    """The table from its first row on; one such pass at a time."""
    state.new_pass()
    rows: Iterator[Row] = islice(source.rows(), asked.limit)
    return items(rows, asked.recipe, state.occurrence, asked.id_column)


def survey(asked: Asked, source: Source, state: State) -> Survey:
    """Goes through the whole table and sends nothing. Raises UsageError and FaultyInputError for what cannot be run."""
    found = Survey()
    cut = Cut(asked.part_rows)
    for item in items_of(asked, source, state):
        found.rows += 1
        if item.key is None:
            found.blank += 1
            continue
        before = state.outcome(item.key)
        if before is not None and before.answered:
            found.answered += 1
            continue
        found.again += before is not None
        found.to_send += 1
        found.parts = cut.part_of(len(item.line))
        found.tokens += messages_tokens(asked.recipe.messages(item.row))
        found.first = found.first or item
    if found.rows:
        _check_columns(asked, source)
    return found


def _check_columns(asked: Asked, source: Source) -> None:
    """Only now are the columns of JSON lines known."""
    there, file = source.columns, str(asked.file)
    check_columns(asked.recipe.prompt, there, "--prompt", file)
    if asked.recipe.system is not None:
        check_columns(asked.recipe.system, there, "--system", file)
    check_clash(there, asked.prefix, file)
