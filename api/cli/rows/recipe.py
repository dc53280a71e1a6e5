"""What one row becomes: a request's body, and the identity under which its answer is kept. Pure."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.cli.outcome import FaultyInputError, UsageError
from api.cli.rows.template import Template
from api.cli.rows.values import is_blank, text
from shared.lines import MAX_LINE_BYTES

ENDPOINT = "/v1/chat/completions"
_OURS = frozenset({"model", "messages", "stream"})
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True)
class Row:
    """One row of a table. `place`: where it stands, in words, such as `line 7`. `origin`: the format's own form of it."""

    place: str
    values: Mapping[str, Any]
    origin: Any = None


@dataclass(frozen=True)
class Recipe:
    """How to ask. `parameters` go into every request's body, such as `max_tokens`."""

    prompt: Template
    model: str
    system: Template | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError for a parameter that would change what a request is."""
        if ours := sorted(_OURS & self.parameters.keys()):
            raise UsageError(
                f"--param {ours[0]}: this is not for --param; see --model, --prompt and --system."
            )

    def messages(self, row: Row) -> list[dict[str, str]]:
        system = [] if self.system is None else [("system", self.system)]
        return [
            {"role": role, "content": template.render(row.values, text)}
            for role, template in (*system, ("user", self.prompt))
        ]

    def body(self, row: Row) -> bytes | None:
        """The request's body; None where every column that the prompt names is blank: there is nothing to ask.

        The bytes depend on the content alone. Raises FaultyInputError for a row that no request can hold.
        """
        columns = self.prompt.columns
        if columns and all(is_blank(row.values.get(name)) for name in columns):
            return None
        try:
            body = _encode({**self.parameters, "model": self.model, "messages": self.messages(row)})
        except ValueError as exc:  # a lone surrogate, or a number that JSON has no room for
            raise FaultyInputError(f"{row.place}: this row cannot be written as a request: {exc}.") from exc
        if len(body) > MAX_LINE_BYTES - 1024:
            raise FaultyInputError(
                f"{row.place}: this row makes a request of {len(body):,} bytes; a request has at most 16 MiB."
            )
        return body


@dataclass(frozen=True)
class Item:
    """A row and its request; `key` and `body` are None where nothing is to be asked."""

    row: Row
    key: str | None
    body: bytes | None

    @property
    def line(self) -> bytes:
        """The request as a line of a batch's input."""
        line = {
            "custom_id": self.key,
            "method": "POST",
            "url": ENDPOINT,
            "body": msgspec.Raw(self.body or b"{}"),
        }
        return msgspec.json.encode(line) + b"\n"


def digest_of(body: bytes) -> str:
    """The first half of its SHA-256, in hex."""
    return hashlib.sha256(body).hexdigest()[:32]


def items(
    rows: Iterable[Row], recipe: Recipe, occurrence: Callable[[str], int], id_column: str | None = None
) -> Iterator[Item]:
    """Each row's request and identity: the body's digest, and which one of the rows with this body it is (or its own id).

    So neither the order of the rows nor what stands between them matters. `occurrence(name)` counts from 1 how often it
    has been asked for a name. Raises FaultyInputError for an id that is blank or comes twice.
    """
    for row in rows:
        body = recipe.body(row)
        if body is None:
            yield Item(row, None, None)
            continue
        digest = digest_of(body)
        if id_column is None:
            yield Item(row, f"{digest}-{occurrence(digest)}", body)
            continue
        own = text(row.values.get(id_column))
        if is_blank(own):
            raise FaultyInputError(f"{row.place}: --id-column {id_column!r} is blank here.")
        if occurrence(f"id:{own}") > 1:
            raise FaultyInputError(
                f"{row.place}: --id-column {id_column!r} has {own[:100]!r} for a second time."
            )
        yield Item(row, f"{digest}-{own}", body)
