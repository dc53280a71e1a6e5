"""Which row an answer belongs to: its request's bytes, and which one of the equal ones it is."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.outcome import FaultyInputError, UsageError
from api.cli.rows.recipe import Item, Recipe, Row, items
from api.cli.rows.template import parse

RECIPE = Recipe(parse("Say {text}"), "m", parse("Be brief."), {"max_tokens": 5})


def items_of(rows: list[dict[str, Any]], recipe: Recipe = RECIPE, id_column: str | None = None) -> list[Item]:
    seen: Counter[str] = Counter()

    def occurrence(name: str) -> int:
        seen[name] += 1
        return seen[name]

    numbered = (Row(f"line {n}", values) for n, values in enumerate(rows, 2))
    return list(items(numbered, recipe, occurrence, id_column))


def keys(
    rows: list[dict[str, Any]], recipe: Recipe = RECIPE, id_column: str | None = None
) -> list[str | None]:
    return [item.key for item in items_of(rows, recipe, id_column)]


def test_the_request_and_its_name_never_change_over_versions() -> None:
    """Golden: another digest would ask, and pay, for every row of every user again."""
    [item] = items_of([{"text": "ä"}])
    assert (
        item.body
        == (
            '{"max_tokens":5,"messages":[{"content":"Be brief.","role":"system"},'
            '{"content":"Say ä","role":"user"}],"model":"m"}'
        ).encode()
    )
    assert item.key == "6013825bc8ff05c35b2b2a110049ba14-1"
    line = msgspec.json.decode(item.line)
    assert (line["custom_id"], line["method"], line["url"]) == (item.key, "POST", "/v1/chat/completions")


@given(st.lists(st.sampled_from("abcd")), st.randoms(use_true_random=False), st.lists(st.sampled_from("ade")))
def test_order_and_appended_rows_change_no_name(texts: list[str], random: Any, more: list[str]) -> None:
    before = keys([{"text": text} for text in texts])
    assert len(set(before)) == len(before)
    shuffled = list(texts)
    random.shuffle(shuffled)
    after = keys([{"text": text} for text in shuffled + more])
    assert set(before) <= set(after)
    assert len(set(after)) == len(after)


def test_columns_that_the_prompt_does_not_name_play_no_part() -> None:
    assert keys([{"text": "a", "n": 1}]) == keys([{"text": "a", "n": 2}])


@pytest.mark.parametrize(
    "other",
    [
        Recipe(parse("Say: {text}"), "m", parse("Be brief."), {"max_tokens": 5}),
        Recipe(parse("Say {text}"), "n", parse("Be brief."), {"max_tokens": 5}),
        Recipe(parse("Say {text}"), "m", None, {"max_tokens": 5}),
        Recipe(parse("Say {text}"), "m", parse("Be brief."), {"max_tokens": 6}),
    ],
)
def test_another_question_is_another_row(other: Recipe) -> None:
    assert keys([{"text": "a"}]) != keys([{"text": "a"}], other)


@pytest.mark.parametrize("blank", ["", "  \n", None, float("nan")])
def test_nothing_to_ask(blank: Any) -> None:
    assert keys([{"text": blank}, {}]) == [None, None]
    two = Recipe(parse("{text}{more}"), "m")
    assert keys([{"text": blank, "more": 0}], two) != [None]
    assert keys([{"text": blank}], Recipe(parse("No columns."), "m")) != [None]


def test_an_id_of_the_rows_own() -> None:
    rows: list[dict[str, Any]] = [{"text": "same", "id": 7}, {"text": "same", "id": "b"}]
    there, back = keys(rows, id_column="id"), keys(rows[::-1], id_column="id")
    assert there == back[::-1]
    assert [str(key)[32:] for key in there] == ["-7", "-b"]
    with pytest.raises(FaultyInputError, match="line 3: --id-column 'id' has '7' for a second time"):
        keys([{"text": "a", "id": 7}, {"text": "b", "id": "7"}], id_column="id")
    with pytest.raises(FaultyInputError, match="line 2: --id-column 'id' is blank"):
        keys([{"text": "a"}], id_column="id")


def test_what_no_request_can_hold_is_named() -> None:
    with pytest.raises(FaultyInputError, match="line 2: this row cannot be written"):
        keys([{"text": "\ud800"}])
    with pytest.raises(FaultyInputError, match="line 3: this row makes a request of"):
        keys([{"text": "a"}, {"text": "x" * 17_000_000}])
    with pytest.raises(UsageError, match="--param messages"):
        Recipe(parse("a"), "m", None, {"messages": []})
