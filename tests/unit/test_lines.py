import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.offers import Serves

from shared.errors import ProviderTimeoutError, RequestRefusedError
from shared.jobs import Fault
from shared.lines import (
    ENDPOINTS,
    Checked,
    Place,
    Routing,
    check,
    failure_line,
    read_request,
    split_lines,
    success_line,
    unfinished_line,
)

CHAT = ENDPOINTS[0]


def line(**changes: object) -> bytes:
    good: dict[str, object] = {
        "custom_id": "a",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    }
    return json.dumps({k: v for k, v in {**good, **changes}.items() if v is not None}).encode()


def checked(data: bytes | None, endpoint: str = CHAT) -> Checked | Fault:
    return check(Place(7, 0, data), endpoint, Serves("m"))


def code(data: bytes | None, endpoint: str = CHAT) -> str:
    fault = checked(data, endpoint)
    assert isinstance(fault, Fault)
    assert fault.line == 7
    return fault.code


def test_a_good_line() -> None:
    assert checked(line()) == Checked("a", "m")
    assert checked(line(body={"model": "m", "prompt": "x"}, url=ENDPOINTS[1]), ENDPOINTS[1]) == Checked(
        "a", "m"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xfe{}", "invalid_encoding"),
        (line(custom_id="ä").replace(b"\\u00e4", b"\xe4"), "invalid_encoding"),
        (b"{not json", "invalid_json_line"),
        (b'["a"]', "invalid_request"),
        (line().replace(b"[{", b"[" * 100_000 + b"{"), "invalid_json_line"),
        (line(custom_id=None), "invalid_request"),
        (line(custom_id=3), "invalid_request"),
        (line(custom_id=""), "missing_custom_id"),
        (line(method="GET"), "invalid_method"),
        (line(url="/v1/embeddings"), "mismatched_endpoint"),
        (line(url=ENDPOINTS[1]), "mismatched_endpoint"),
        (line(body=[1]), "invalid_request"),
        (line(body={"model": "m"}), "invalid_request"),
        (line(body={"model": "m", "messages": []}), "invalid_request"),
        (line(body={"messages": [1]}), "invalid_request"),
        (line(body={"model": "other", "messages": [1]}), "model_not_found"),
        (line(body={"model": "m", "messages": [1], "stream": True}), "stream_not_supported"),
        (None, "line_too_long"),
    ],
)
def test_a_bad_line_says_what_is_wrong(data: bytes | None, expected: str) -> None:
    assert code(data) == expected


def test_a_missing_field_is_named() -> None:
    fault = checked(line(custom_id=None))
    assert isinstance(fault, Fault)
    assert fault.param == "custom_id"


def test_the_body_reaches_the_worker_byte_for_byte() -> None:
    data = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model": "m",  "messages":[1.50]}}'
    request = read_request(data)
    assert (request.custom_id, request.model) == ("a", "m")
    assert request.body == b'{"model": "m",  "messages":[1.50]}'


@given(
    st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b), max_size=8),
    st.integers(1, 9),
    st.booleans(),
)
def test_lines_are_found_whatever_the_chunks(pieces: list[bytes], size: int, ends: bool) -> None:
    whole = b"\n".join(pieces) + (b"\n" if ends and pieces else b"")
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    places = list(split_lines(chunks))
    for place in places:
        assert place.data is not None
        assert whole[place.offset : place.offset + len(place.data)] == place.data
    bom = b"\xef\xbb\xbf"
    texts = [p.removeprefix(bom) if n == 0 else p for n, p in enumerate(whole.split(b"\n"))]
    wanted = [(n, t.removesuffix(b"\r")) for n, t in enumerate(texts, 1)]
    assert [(p.number, p.data) for p in places] == [(n, t) for n, t in wanted if t and not t.isspace()]


def test_crlf_blank_lines_and_a_byte_order_mark() -> None:
    places = list(split_lines([b"\xef\xbb\xbf{}\r\n\r\n  \n{}"]))
    assert [(p.number, p.offset, p.data) for p in places] == [(1, 3, b"{}"), (4, 12, b"{}")]


def test_a_line_too_long_is_a_fault_and_the_next_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.lines.MAX_LINE_BYTES", 10)
    places = list(split_lines([b"x" * 8, b"x" * 8 + b"\n{}\n"]))
    assert [(p.number, p.offset, p.data) for p in places] == [(1, 0, None), (2, 17, b"{}")]


ROUTING = Routing(provider="p", attempts=2, duration_s=0.5, cost_usd="0.1")


def test_an_answer_keeps_the_providers_json_on_one_line() -> None:
    made = success_line(
        line_id="batch_req_1",
        custom_id="a",
        request_id="r",
        body=b'{\n "x": "1\\n2",\n "y": 1.50}',
        routing=ROUTING,
    )
    assert made.count(b"\n") == 1
    assert b'{"x":"1\\n2","y":1.50}' in made
    found = json.loads(made)
    assert found["response"]["status_code"] == 200
    assert found["error"] is None
    assert found["routing"] == {"provider": "p", "attempts": 2, "duration_s": 0.5, "cost_usd": "0.1"}


def test_an_http_failure_keeps_its_status_and_body() -> None:
    error = RequestRefusedError("no", http_status=400, body={"error": {"message": "no"}})
    found = json.loads(failure_line(line_id="b", custom_id="a", request_id="r", error=error, routing=ROUTING))
    assert found["error"] is None
    assert found["response"] == {"status_code": 400, "request_id": "r", "body": {"error": {"message": "no"}}}


def test_another_failure_is_an_error_without_a_response() -> None:
    error = ProviderTimeoutError("no answer within 3 s")
    found = json.loads(failure_line(line_id="b", custom_id="a", request_id="r", error=error, routing=ROUTING))
    assert found["response"] is None
    assert found["error"] == {"code": "request_timeout", "message": "no answer within 3 s"}


def test_unfinished_jobs_have_openais_codes() -> None:
    assert (
        json.loads(unfinished_line(line_id="b", custom_id="a", state="x"))["error"]["code"] == "batch_expired"
    )
    assert (
        json.loads(unfinished_line(line_id="b", custom_id="a", state="c"))["error"]["code"]
        == "batch_cancelled"
    )


def test_the_faults_encode_as_the_wire_wants_them() -> None:
    assert msgspec.to_builtins(Fault(code="c", message="m", line=3)) == {
        "code": "c",
        "message": "m",
        "line": 3,
        "param": None,
    }
