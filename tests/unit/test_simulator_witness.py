from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigError
from workers.simulator.personas import Repeats
from workers.simulator.witness import Call, Witness, fingerprint


def call(prompt: str = "p") -> Call:
    return Call(0, "default", 1.0, "ab", prompt, "m", 3, None)


@given(st.integers(1, 8), st.integers(0, 30), st.integers(0, 35), st.integers(1, 12))
def test_pages_are_the_latest_calls_in_order(size: int, count: int, after: int, limit: int) -> None:
    witness = Witness(size)
    for _ in range(count):
        witness.receive(call())
    kept = range(max(0, count - size) + 1, count + 1)
    assert [c.n for c in witness.after(after, limit)] == [n for n in kept if n > after][:limit]


def test_a_call_is_there_before_it_has_ended_and_in_the_file_after(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    witness = Witness(10, file)
    first, second = witness.receive(call("first")), witness.receive(call("second"))
    assert [(c.status, c.ended_at) for c in witness.after(0, 10)] == [(None, None)] * 2
    witness.end(second, 200, 7)
    witness.end(first, "dropped")
    lines = [msgspec.json.decode(line, type=Call) for line in file.read_bytes().splitlines()]
    assert lines == [second, first]
    assert (second.n, second.status, second.completion_tokens, first.status) == (2, 200, 7, "dropped")
    witness.close()


def test_after_a_reset_it_counts_from_one() -> None:
    witness = Witness(10)
    early = witness.receive(call())
    witness.clear()
    witness.end(early, 200)
    assert witness.after(0, 10) == []
    assert witness.receive(call()).n == 1


def test_a_file_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--log"):
        Witness(10, tmp_path / "missing" / "calls.jsonl")


def test_keys_are_told_apart_and_kept_secret() -> None:
    assert fingerprint(b"Bearer one") != fingerprint(b"Bearer two")
    assert len(fingerprint(b"Bearer one")) == 8


@given(st.lists(st.integers(0, 5), max_size=60))
def test_repeats_are_counted_exactly_while_there_is_room(bodies: list[int]) -> None:
    repeats, seen = Repeats(100), dict.fromkeys(range(6), 0)
    for body in bodies:
        seen[body] += 1
        assert repeats.next(bytes([body])) == seen[body]


def test_repeats_forget_the_oldest_only_and_stay_bounded() -> None:
    repeats = Repeats(4)
    for n in range(100):
        repeats.next(bytes([n]))
    assert [repeats.next(bytes([n])) for n in (99, 98, 97, 96)] == [2] * 4
    assert repeats.next(bytes([1])) == 1
    assert len(repeats._young) + len(repeats._old) <= 8
