"""A prompt over the columns of a table: `Summarise {text}`. Nothing is evaluated: between braces stands a column's name, whole. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api.cli.outcome import UsageError

_ESCAPE = "A brace that is meant as a brace is written {{ or }}."


@dataclass(frozen=True)
class Column:
    """The place of a column's value."""

    name: str


@dataclass(frozen=True)
class Template:
    """Literal text and columns, in order."""

    parts: tuple[str | Column, ...]

    @property
    def columns(self) -> list[str]:
        """The columns it names, each once, in order."""
        return list(dict.fromkeys(part.name for part in self.parts if isinstance(part, Column)))

    def render(self, values: Mapping[str, Any], text: Callable[[Any], str]) -> str:
        """`text` writes one value; a column that the row lacks is None to it."""
        return "".join(part if isinstance(part, str) else text(values.get(part.name)) for part in self.parts)


def parse(source: str, what: str = "--prompt") -> Template:
    """`{a.b}` and `{a[0]}` are columns of just these names. Raises UsageError for a brace without its other half."""
    parts: list[str | Column] = []
    literal: list[str] = []
    at = 0
    while at < len(source):
        char = source[at]
        if char not in "{}":
            literal.append(char)
            at += 1
        elif source[at : at + 2] in {"{{", "}}"}:
            literal.append(char)
            at += 2
        else:
            name, at = _name(source, at, what)
            parts.extend(["".join(literal), Column(name)] if literal else [Column(name)])
            literal = []
    return Template((*parts, "".join(literal)) if literal else tuple(parts))


def _name(source: str, at: int, what: str) -> tuple[str, int]:
    """The column's name that begins with the brace at `at`, and where the text goes on."""
    end = source.find("}", at)
    name = source[at + 1 : end]
    if source[at] == "}" or end < 0 or "{" in name:
        raise UsageError(f"{what}: the {source[at]!r} at character {at + 1} has no other half. {_ESCAPE}")
    if not name:
        raise UsageError(f"{what}: the {{}} at character {at + 1} names no column. {_ESCAPE}")
    return name, end + 1


def check_columns(template: Template, there: Iterable[str], what: str, file: str) -> None:
    """Raises UsageError where the template names a column that the table does not have."""
    known = list(there)
    missing = [name for name in template.columns if name not in set(known)]
    if missing:
        names = ", ".join(map(repr, known)) or "none"
        wrong = " and ".join(map(repr, missing))
        raise UsageError(
            f"{what} names {wrong}, but {file} has no such column. Its columns: {names}. {_ESCAPE}"
        )
