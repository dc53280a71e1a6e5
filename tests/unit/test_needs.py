from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalogue import Capability
from shared.needs import needs_in, needs_of

TOOL = {"type": "function", "function": {"name": "f"}}


def asks(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "text"}, {"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({}, set()),
        ({"messages": [{"role": "user", "content": "hello"}], "n": 1, "logprobs": False}, set()),
        ({"tools": [TOOL]}, {"tools"}),
        ({"tools": []}, set()),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": "json_object"}}, {"json_object"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        (asks({"type": "text", "text": "hello"}), set()),
        (asks({"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "u"}}), {"vision"}),
        (asks({"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}), {"audio", "files"}),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, {"audio"}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs"}),
        ({"prompt": "p", "logprobs": 0}, {"logprobs"}),
        ({"n": 2}, {"n"}),
    ],
)
def test_what_a_request_needs(body: dict[str, Any], needs: set[str]) -> None:
    assert needs_of(body) == needs


atoms = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
things = st.one_of(
    atoms, st.dictionaries(st.sampled_from(["type", "content"]), atoms), st.lists(atoms, max_size=2)
)
json = st.one_of(
    things, st.lists(st.one_of(things, st.fixed_dictionaries({"content": st.lists(things, max_size=2)})))
)
FIELDS = ["messages", "tools", "functions", "response_format", "modalities", "logprobs", "top_logprobs", "n"]


@given(st.dictionaries(st.sampled_from(FIELDS), json))
def test_any_body_is_read(body: dict[str, Any]) -> None:
    assert needs_of(body) <= set(get_args(Capability))


@pytest.mark.parametrize("body", [b"", b"[]", b'"tools"', b"\xff", b'{"tools":' + b"[" * 100_000])
def test_what_is_no_body_needs_nothing(body: bytes) -> None:
    assert needs_in(body) == set()
    assert needs_in(b'{"tools": [{}], "n": 2}') == {"tools", "n"}
