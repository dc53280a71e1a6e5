"""What is kept in Redis outlives the process that wrote it: its form changes only on purpose, and what was written stays readable."""

import json
from typing import Any

import msgspec
import pytest
from support import golden
from support.records import RECORDS

from shared.keys import Keys

TEST = "tests/unit/test_records.py"


@pytest.fixture
def renew(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("golden"))


def table() -> dict[str, str]:
    """Of the keys' register: key -> type."""
    rows = [line.strip().strip("|").split("|") for line in (Keys.__doc__ or "").splitlines() if "|" in line]
    return {cells[0].strip(): cells[1].strip() for cells in rows[2:]}


def encoded(name: str) -> Any:
    return json.loads(msgspec.json.encode(RECORDS[name].example))


@pytest.mark.parametrize("name", RECORDS)
def test_the_form_of_a_record_is_its_golden_file(name: str, renew: bool) -> None:
    form = msgspec.json.schema(RECORDS[name].type)
    golden.check(name, form, renew=renew, test=TEST, example=encoded(name))


def test_the_keys_are_those_of_the_golden_file(renew: bool) -> None:
    assert len(table()) > 30
    golden.check("keys", table(), renew=renew, test=TEST)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_stands_under_keys_that_there_are(name: str) -> None:
    assert set(RECORDS[name].keys) <= set(table())


@pytest.mark.parametrize("name", RECORDS)
def test_what_was_ever_written_is_read(name: str) -> None:
    kept = golden.examples(name)
    assert encoded(name) in kept, golden.RENEW.format(name=name, test=TEST)
    for example in kept:
        msgspec.json.decode(json.dumps(example), type=RECORDS[name].type)


@pytest.mark.parametrize("name", RECORDS)
def test_what_a_newer_release_adds_is_passed_over(name: str) -> None:
    more = encoded(name)
    if not isinstance(more, dict):
        more = [more[0] | {"newer": [{}]}] if name == "faults" else [*more, {"newer": 1}]
    else:
        more["newer"] = {"a": [1]}
    found = msgspec.json.decode(json.dumps(more), type=RECORDS[name].type)
    assert found == RECORDS[name].example
    schema = json.dumps(msgspec.json.schema(RECORDS[name].type))
    assert '"additionalProperties": false' not in schema, "nothing within it may refuse what it does not know"


def test_a_changed_form_fails_and_says_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"--golden[\s\S]*raise VERSION"):
        golden.check("history", {"changed": True}, renew=False, test=TEST)
