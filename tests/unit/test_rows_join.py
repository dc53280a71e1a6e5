"""Answers on their way into a table: what a line tells, the columns, the batches' borders, the state."""

import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.outcome import FileError, UsageError
from api.cli.rows.answer import Outcome, outcome_of
from api.cli.rows.columns import OURS, Kinds, cells, check_clash
from api.cli.rows.cut import Cut
from api.cli.rows.price import estimate, in_words
from api.cli.rows.state import State

GOOD = Outcome("yes", None, "stop", "sim", 3, 4, "0.5")


def answer(choice: Any, **more: Any) -> dict[str, Any]:
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    routing = {"provider": "sim", "cost_usd": "0.50"}
    return {"response": {"status_code": 200, "body": body}, "error": None, "routing": routing, **more}


def test_an_answer() -> None:
    line = answer({"message": {"content": "yes"}, "finish_reason": "stop"})
    assert outcome_of(line) == Outcome("yes", None, "stop", "sim", 3, 4, "0.50")
    assert outcome_of(answer({"message": {"content": ""}})).answer == ""
    assert outcome_of(answer({"message": {"content": "\ud800!"}})).answer == "?!"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"error": {"code": "batch_expired", "message": "Too\nlate."}}, "batch_expired: Too late."),
        ({"response": {"status_code": 400, "body": {"error": {"message": "no", "type": "t"}}}}, "t: no"),
        ({"response": {"status_code": 500, "body": "<html>"}}, "500: no answer and no reason"),
        (answer({"message": {"content": None, "refusal": "I will not."}}), "refused: I will not."),
        (answer({"message": {"tool_calls": []}}), "the answer has no text"),
        ({}, "unknown: no answer and no reason"),
        ({"error": {}, "response": []}, "unknown: no answer and no reason"),
    ],
)
def test_why_there_is_none(line: dict[str, Any], error: str) -> None:
    found = outcome_of(line)
    assert (found.answer, found.error, found.answered) == (None, error, False)


def test_a_clash_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"already has the columns 'answer', 'error'.*--prefix llm_"):
        check_clash(["id", "answer", "error"], "", "r.csv")
    check_clash(["id", "answer"], "llm_", "r.csv")
    assert list(cells(GOOD, "llm_")) == [f"llm_{name}" for name in OURS]


def test_what_untyped_columns_hold() -> None:
    kinds = Kinds()
    kinds.learn({"i": 1, "f": 1, "b": True, "t": "a", "mixed": 1, "big": 2**70, "nothing": None})
    kinds.learn({"late": [], "i": None, "f": 0.5, "mixed": "a"})
    found = {name: kinds.of(name) for name in kinds.columns}
    assert found == {
        "i": "int", "f": "float", "b": "bool", "t": "text", "mixed": "text", "big": "text", "nothing": "text", "late": "text",
    }  # fmt: skip


@given(st.lists(st.integers(1, 50)), st.integers(1, 5), st.integers(50, 120))
def test_no_batch_is_beyond_its_bounds_and_none_is_cut_early(sizes: list[int], rows: int, size: int) -> None:
    cut = Cut(rows, size)
    parts: dict[int, list[int]] = {}
    for line in sizes:
        parts.setdefault(cut.part_of(line), []).append(line)
    assert list(parts) == list(range(1, len(parts) + 1))
    assert all(len(part) <= rows and sum(part) <= size for part in parts.values())
    assert all(len(a) == rows or sum(a) + b[0] > size for a, b in pairwise(parts.values()))


def test_the_state_keeps_answers_and_forgets_failures_for_them(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with State(path) as state:
        part = state.plan("t1", "http://a", 2)
        state.created(part, "batch_1")
        state.settle(part, [("a", GOOD), ("b", Outcome(error="no"))])
    with State(path) as state:
        assert state.open_part() is None
        assert (state.answered("a"), state.answered("b"), state.outcome("c")) == (True, False, None)
        second = state.plan("t2", "http://a", 2)
        state.settle(second, [("a", Outcome(error="worse")), ("b", GOOD)])
        assert (state.outcome("a"), state.outcome("b")) == (GOOD, GOOD)


def test_what_breaks_in_the_middle_leaves_the_part_open(tmp_path: Path) -> None:
    def broken() -> Any:
        yield ("a", GOOD)
        raise FileError("cut short")

    with State(tmp_path / "s") as state:
        part = state.plan("t", "http://a", 1)
        with pytest.raises(FileError):
            state.settle(part, broken())
        assert state.open_part() == part
        assert not state.answered("a")


def test_a_plan_that_became_no_batch_is_replaced(tmp_path: Path) -> None:
    with State(tmp_path / "s") as state:
        state.uploaded(state.plan("t", "http://a", 1), "file-1")
        again = state.plan("u", "http://a", 1)
        assert state.open_part() == again
        assert again.number == 1


def test_one_command_at_a_time_and_only_on_a_state(tmp_path: Path) -> None:
    with State(tmp_path / "s"), pytest.raises(UsageError, match="Another llm-edge is at work"):
        State(tmp_path / "s")
    (tmp_path / "other").write_text(
        "no database at all, but some text that is long enough to be looked at\n" * 20
    )
    with pytest.raises(FileError, match="is no state of llm-edge"):
        State(tmp_path / "other")
    sqlite3.connect(tmp_path / "theirs").execute("create table x (y)").connection.close()
    with pytest.raises(FileError):
        State(tmp_path / "theirs")


def test_a_price_is_an_estimate_or_unknown_and_never_nothing() -> None:
    found = estimate("gpt-4o-mini", 1000, 200_000, 100)
    assert found is not None
    assert "at most $0.06 for the answers, at the list price of OpenAI" in in_words("gpt-4o-mini", found)
    assert "on top" in in_words("gpt-4o-mini", estimate("gpt-4o-mini", 1, 1, None))
    assert estimate("our-own-model", 1, 1, 1) is None
    assert in_words("our-own-model", None) == "unknown: no list price is known for 'our-own-model'"
