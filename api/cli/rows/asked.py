"""What a user asks of a run over rows, read from the command line's words."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.cli.outcome import FileError, UsageError
from api.cli.rows.recipe import Recipe
from api.cli.rows.source import Reading, format_of
from api.cli.rows.template import Template, parse


@dataclass(frozen=True)
class Asked:
    """One run. `part_rows`: at most so many rows in one batch. `partial`: send nothing, write what there is."""

    file: Path
    output: Path
    recipe: Recipe
    reading: Reading
    limit: int | None = None
    id_column: str | None = None
    prefix: str = ""
    part_rows: int = 50_000
    window: str = "24h"
    metadata: Mapping[str, str] = field(default_factory=dict)
    yes: bool = False
    partial: bool = False

    def check(self) -> None:
        """Raises UsageError where the files cannot be what they are to be."""
        format_of(self.file, "FILE")
        format_of(self.output, "-o")
        folder = self.output.parent
        if self.output.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(
                f"{self.output} cannot be written: name a file in a folder that you may write to."
            )
        if self.output.exists() and self.output.samefile(self.file):
            raise UsageError(f"{self.output} is the input file itself; name another for the answers.")


def template_of(words: str, what: str) -> Template:
    """The template itself, or, of `@file`, the file's text without its last line end; `@@` begins one with an `@`."""
    if words.startswith("@@") or not words.startswith("@"):
        return parse(words.removeprefix("@"), what)
    path = Path(words[1:])
    try:
        source = path.read_text("utf-8-sig")
    except OSError as exc:
        raise FileError(f"{what} {path}: {os.strerror(exc.errno or 0)}") from exc
    except UnicodeDecodeError as exc:
        raise FileError(f"{what} {path} is no UTF-8 text.") from exc
    return parse(source.removesuffix("\n").removesuffix("\r"), f"{what} {path}")


def parameters_of(max_tokens: int | None, temperature: float | None, others: list[str]) -> dict[str, Any]:
    """The body's further fields: `key=JSON` words, of which what is no JSON is taken as text. Raises UsageError."""
    found: dict[str, Any] = {}
    for word in others:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--param {word!r}: write it as key=value, such as top_p=0.9.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    known = {"max_tokens": max_tokens, "temperature": temperature}
    return {**found, **{key: value for key, value in known.items() if value is not None}}


def delimiter_of(word: str | None) -> str | None:
    """One character; a tab may be written as backslash and t, or `tab`. Raises UsageError."""
    delimiter = {"\\t": "\t", "tab": "\t"}.get(word, word) if word is not None else None
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise UsageError(f"--delimiter {word!r}: name one character, such as ';' or '\\t'.")
    return delimiter


def encoding_of(word: str) -> str:
    try:
        "".encode(word)
    except LookupError as exc:
        raise UsageError(f"--encoding {word!r}: Python knows no encoding of this name.") from exc
    return word
