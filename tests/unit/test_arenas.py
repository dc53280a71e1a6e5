"""Whether the C library is told to keep few heaps."""

import pytest

from api import arenas


def test_what_the_environment_says_of_heaps_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert not arenas.keep_few()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert not arenas.keep_few()
