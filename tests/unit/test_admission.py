"""Who is let in, from path and headers alone; and what the routes' dependencies make of it."""

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from api import problems
from api.admission import ONLY, OPEN, by_key, from_this_machine, presented
from api.caller import AdminCaller, CallerOf, MaybeCaller
from api.guard import Guard
from api.keyring import Caller, Keyring, entry_of, parse_keyring
from api.routes.metrics import may_scrape
from shared.errors import NotAllowedError, UnknownKeyError

RING = parse_keyring([("KEYS", f"{entry_of('alice', 'a-key')},{entry_of('ops', 'o-key', admin=True)}")])
ALICE, OPS = Caller("alice"), Caller("ops", admin=True)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, ""),
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"authorization": "BEARER k"}, "k"),
        ({"authorization": "k"}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Basic k"}, ""),
        ({"x-api-key": "k"}, "k"),
        ({"authorization": "Bearer k", "x-api-key": "other"}, "k"),
        ({"authorization": "Basic b", "x-api-key": "k"}, "k"),
    ],
)
def test_where_a_key_may_stand(headers: dict[str, str], key: str) -> None:
    assert presented(Headers(headers)) == key


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=50), st.text(max_size=30))
def test_only_a_key_opens_a_path_that_is_not_open(key: str, tail: str) -> None:
    path = f"/{tail}"
    admit, headers = by_key(RING), Headers({"authorization": f"Bearer {key}"})
    if path in OPEN:
        assert admit(path, headers) is None
    else:
        with pytest.raises(UnknownKeyError) as refused:
            admit(path, headers)
        assert len(key) < 4 or key not in refused.value.message
    assert admit(path, Headers({"authorization": "Bearer a-key"})) == ALICE


def test_with_keys_no_host_or_origin_is_wrong() -> None:
    headers = Headers({"host": "llm.example", "origin": "https://app.example", "x-api-key": "a-key"})
    assert by_key(RING)("/v1/files", headers) == ALICE


def test_without_keys_only_this_machine_is_right() -> None:
    assert from_this_machine("/v1/files", Headers({"host": "127.0.0.1:8080", "x-api-key": "any"})) == ONLY
    with pytest.raises(NotAllowedError, match="Host"):
        from_this_machine("/health", Headers({"host": "llm.example", "authorization": "Bearer a-key"}))


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.get("/health")
    async def anybody(caller: MaybeCaller) -> str:
        return caller.owner if caller else "a stranger"

    @app.get("/metrics")
    async def forgotten(caller: CallerOf) -> str:
        """A route that needs a caller on a path that was left open."""
        return caller.owner

    @app.get("/v1/mine")
    async def mine(caller: CallerOf) -> str:
        return caller.owner

    @app.get("/v1/fleet")
    async def fleet(caller: AdminCaller) -> str:
        return caller.owner

    app.add_middleware(Guard, admit=by_key(RING))
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "key", "status", "said"),
    [
        ("/health", "", 200, "a stranger"),
        ("/health", "a-key", 200, "alice"),
        ("/v1/mine", "", 401, "invalid_api_key"),
        ("/v1/mine", "wrong", 401, "invalid_api_key"),
        ("/v1/mine", "a-key", 200, "alice"),
        ("/v1/fleet", "", 401, "invalid_api_key"),
        ("/v1/fleet", "a-key", 403, "permission_denied"),
        ("/v1/fleet", "o-key", 200, "ops"),
        ("/metrics", "", 401, "invalid_api_key"),
        ("/nowhere", "", 401, "invalid_api_key"),
        ("/nowhere", "a-key", 404, "not_found"),
    ],
)
def test_strangers_owners_and_admins(client: TestClient, path: str, key: str, status: int, said: str) -> None:
    answer = client.get(path, headers={"Authorization": f"Bearer {key}"} if key else {})
    assert (answer.status_code, said in answer.text) == (status, True)
    assert answer.headers["x-request-id"]
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    if status != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("caller", "sent", "token", "ring", "expected"),
    [
        (ONLY, "", None, Keyring(), True),  # on loopback, without anything configured
        (ONLY, "", "the-token", Keyring(), False),
        (ONLY, "the-token", "the-token", Keyring(), True),
        (None, "", None, RING, False),  # on a public port
        (ALICE, "a-key", None, RING, False),
        (OPS, "o-key", None, RING, True),
        (None, "the-token", "the-token", RING, True),
        (ALICE, "a-key", "the-token", RING, False),
        (OPS, "o-key", "the-token", RING, True),
        (ONLY, "", None, RING, True),  # on the internal address
        (ONLY, "", "the-token", RING, False),
        (ONLY, "o-key", "the-token", RING, True),
    ],
)
def test_who_may_scrape(
    caller: Caller | None, sent: str, token: str | None, ring: Keyring, expected: bool
) -> None:
    assert may_scrape(caller, sent, token, ring) is expected
