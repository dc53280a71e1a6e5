"""What a key is, what counts as the same request, and what becomes of a job whose taking in was not answered."""

import json

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from api import idempotency
from shared.errors import KeyReusedError, RequestError
from shared.idempotency import Kept, Once, earlier

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def request(*keys: bytes, path: str = "/v1/batches", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    rows = [(b"idempotency-key", key) for key in keys] + named
    return Request({"type": "http", "method": "POST", "path": path, "headers": rows})


def test_a_request_need_not_have_a_key() -> None:
    assert idempotency.name_of(request()) is None
    assert idempotency.once_of(request(), "me", b"{}", 86_400) is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_printable_ascii_will_do_and_its_name_tells_nothing(key: str) -> None:
    name = idempotency.name_of(request(key.encode()))
    assert name is not None
    assert (name[0], len(name), name.isalnum()) == ("k", 33, True)


@pytest.mark.parametrize("keys", [(b"",), (b"x" * 256,), (b"\xe9",), (b"a\tb",), (b"a\x7f",), (b"a", b"a")])
def test_faulty_keys(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(RequestError, match="1 to 255 printable ASCII") as told:
        idempotency.name_of(request(*keys))
    assert told.value.code == "invalid_idempotency_key"


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_the_order_of_keys_and_blanks_count_for_nothing(body: dict[str, object]) -> None:
    there = json.dumps(body, indent=1).encode()
    back = json.dumps(dict(reversed(body.items()))).encode()
    assert idempotency.canonical(there) == idempotency.canonical(back)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"n": 1e999}'])
def test_what_is_no_json_counts_as_it_is(body: bytes) -> None:
    assert idempotency.canonical(body) == body


def test_path_and_content_make_the_request() -> None:
    prints = {
        idempotency.fingerprint(request(path=path), *content)
        for path in ("/v1/batches", "/v1/files")
        for content in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"])
    }
    assert len(prints) == 6


def test_without_a_key_only_what_an_sdk_repeats_is_known_again() -> None:
    first = idempotency.once_or_repeated(request(x_stainless_retry_count="0"), "me", b"{}", 86_400)
    again = idempotency.once_or_repeated(request(x_stainless_retry_count="2"), "me", b"{}", 86_400)
    plain = idempotency.once_or_repeated(request(), "me", b"{}", 86_400)
    assert (first.anew, plain.anew, again.anew) == (True, True, False)
    assert first.name == again.name == plain.name
    keyed = idempotency.once_or_repeated(request(b"key", x_stainless_retry_count="2"), "me", b"{}", 86_400)
    assert (keyed.anew, keyed.keep_s) == (False, 86_400)
    assert keyed.name != first.name


def test_the_decision() -> None:
    once = Once(owner="me", name="k", fingerprint="aa", keep_s=1)
    anew = Once(owner="me", name="k", fingerprint="aa", keep_s=1, anew=True)
    assert earlier(None, once) is None
    assert earlier(Kept("aa", "job_1"), once) == "job_1"
    assert earlier(Kept("aa", "job_1"), anew) is None
    assert earlier(Kept("bb", "job_1"), anew) is None
    with pytest.raises(KeyReusedError):
        earlier(Kept("bb", "job_1"), once)
