"""Prompts over columns: names are names, nothing is evaluated."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.outcome import UsageError
from api.cli.rows.template import Column, check_columns, parse
from api.cli.rows.values import text

names = st.text(st.characters(exclude_characters="{}", codec="utf-8"), min_size=1, max_size=8)
parts = st.lists(st.one_of(st.text(max_size=8), names.map(Column)), max_size=8)


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("Summarise {text}", "Summarise a {b} c"),
        ("{{{text}}}", "{a {b} c}"),
        ("{text}{text}", "a {b} ca {b} c"),
        ("{{text}} }}{{", "{text} }{"),
        ("{a.b}, {a[0]}, {n!r}, {n:>9}, { n }", "dotted, indexed, bang, colon, spaced"),
        ("{none}|{nan}|{n}|{yes}|{list}", '||7|true|[1, {"ä": null}]'),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_a_row_in_a_prompt(source: str, rendered: str) -> None:
    row = {
        "text": "a {b} c",
        "a.b": "dotted",
        "a[0]": "indexed",
        "n!r": "bang",
        "n:>9": "colon",
        " n ": "spaced",
        "none": None,
        "nan": float("nan"),
        "n": 7,
        "yes": True,
        "list": [1, {"ä": None}],
    }
    assert parse(source).render(row, text) == rendered


@given(parts)
def test_whatever_is_escaped_comes_out_as_it_was(found: list[str | Column]) -> None:
    source = "".join(
        f"{{{part.name}}}" if isinstance(part, Column) else part.replace("{", "{{").replace("}", "}}")
        for part in found
    )
    values = {part.name: f"<{part.name}>" for part in found if isinstance(part, Column)}
    wanted = "".join(f"<{part.name}>" if isinstance(part, Column) else part for part in found)
    assert parse(source).render(values, str) == wanted


@given(st.text("{}ab", max_size=12))
def test_any_text_is_a_template_or_a_designed_refusal(source: str) -> None:
    with suppress(UsageError):
        assert all(name and not set(name) & set("{}") for name in parse(source).columns)


@pytest.mark.parametrize("source", ["{", "}", "a {b", "a } b", "{}", "{a{b}", '{"json": 1'])
def test_half_a_brace_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="A brace that is meant as a brace is written"):
        parse(source)


def test_an_unknown_column_names_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"names 'text.upper', but r.csv has no such column. Its columns: 'id', 'text'"
    ):
        check_columns(parse("{text.upper}"), ["id", "text"], "--prompt", "r.csv")
