"""Nothing that one owner can send tells them whether another's file, batch or job exists, let alone touches it.

The routes are those of the running API's own OpenAPI document: a new one must be put into one of the sets below, or the
first test fails.
"""

import http.client
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.batches import CHAT, jsonl, line, lines, submit, upload, wait_for_end
from support.owners import ADMIN, ALICE, BOB, bearer, running_with_keys
from support.stack import Stack
from support.waiting import wait_for

Route = tuple[str, str]

OPEN = {("get", "/health"), ("get", "/health/ready"), ("get", "/metrics")}
"""Served without a key; what they tell whom is tested elsewhere."""
SHARED = {("get", "/v1/models"), ("get", "/v1/models/{model}")}
"""The same for every owner."""
OWN = {("get", "/v1/quota")}  # each caller's own, named nowhere
LISTS = {("get", "/v1/files"), ("get", "/v1/batches"), ("get", "/v1/jobs")}
CREATE = {
    ("post", "/v1/files"),
    ("post", "/v1/batches"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
}
ONE = {
    ("get", "/v1/files/{file_id}"),
    ("delete", "/v1/files/{file_id}"),
    ("get", "/v1/files/{file_id}/content"),
    ("get", "/v1/batches/{batch_id}"),
    ("get", "/v1/batches/{batch_id}/explain"),
    ("post", "/v1/batches/{batch_id}/cancel"),
    ("get", "/v1/jobs/{job_id}"),
    ("delete", "/v1/jobs/{job_id}"),
}
ADMINS = {
    ("get", "/v1/workers"),
    ("get", "/v1/providers"),
    ("get", "/v1/providers/{provider_id}"),
    ("post", "/v1/providers/{provider_id}/enable"),
    ("post", "/v1/providers/{provider_id}/disable"),
    ("post", "/v1/providers/{provider_id}/drain"),
}
"""About the fleet."""

VOLATILE = {"date", "x-request-id", "openai-processing-ms"}
METHODS = ("get", "delete", "post", "put", "patch", "head", "options")
TAILS = (
    "",
    ":c",
    ":p",
    ":st",
    ":ta",
    ":ix",
    ":sh",
    ":r:0",
    "/",
    "//",
    "/content",
    "/cancel",
    "\x00",
    "\xff",
    " ",
    "*",
)


class Hers(NamedTuple):
    """What alice has, by id, and bob has beside her."""

    files: list[str]
    batches: list[str]
    jobs: list[str]

    @property
    def ids(self) -> list[str]:
        return [*self.files, *self.batches, *self.jobs]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


def send(
    stack: Stack, method: str, target: str, key: str | None, body: bytes | None = None, **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=10)
    try:
        connection.request(method.upper(), target, body, {**(bearer(key) if key else {}), **headers})
        answer = connection.getresponse()
        kept = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in VOLATILE}
        return Answer(answer.status, kept, answer.read().decode("utf-8", "replace"))
    finally:
        connection.close()


def without(answer: Answer, name: str) -> Answer:
    """The answer with the id, as it was sent or escaped, taken out."""

    def out(text: str) -> str:
        return text.replace(name, "ID").replace(quote(name, safe=""), "ID")

    return Answer(answer.status, {k: out(v) for k, v in answer.headers.items()}, out(answer.body))


def absent(name: str) -> str:
    """An id that is nobody's, of the same form, and at the same place in any order."""
    return name[:-1] + ("0" if name[-1] != "0" else "1")


def queued_job(stack: Stack, key: str) -> str:
    answer = requests.post(
        f"{stack.base_url}/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "later"}]},
        headers={**bearer(key), "Prefer": "respond-async"},
        timeout=5,
    )
    found = answer.json()["id"]
    assert isinstance(found, str)
    return found


def furnish(stack: Stack, key: str) -> Hers:
    """An ended batch with both of its files, and a job that has ended; workers are needed."""
    stack.simulator.patch(rules=[{"match": "^poison", "status": 400}])
    with stack.client_of(key) as client:
        ended = wait_for_end(client, submit(client, [*lines(3), line("bad", "poison")]).id)
        assert ended.output_file_id
        assert ended.error_file_id
        job = client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "now"}]
        ).headers["x-llm-edge-job"]
        files = [
            ended.input_file_id,
            ended.output_file_id,
            ended.error_file_id,
            upload(client, jsonl(lines(2))),
        ]
        return Hers(files, [ended.id], [str(job)])


def begin(stack: Stack, key: str, has: Hers) -> None:
    """A batch in progress and a job in the queue, both of which stay so: no worker lives."""
    with stack.client_of(key) as client:
        running = submit(client, lines(3, "unfinished"))
        wait_for(lambda: client.batches.retrieve(running.id).status == "in_progress", 10, "validation")
    has.batches.append(running.id)
    has.files.append(running.input_file_id)
    job = queued_job(stack, key)
    wait_for(  # what alice reads of it stays as it is from here on
        lambda: '"no_worker_alive"' in send(stack, "get", f"/v1/jobs/{job}", key).body,
        10,
        "the job to know why it waits",
    )
    has.jobs.append(job)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_with_keys(workers=1) as running:
        yield running


def _workers(stack: Stack) -> int:
    answer = requests.get(f"{stack.url}/health/ready", headers=bearer(ADMIN), timeout=5)
    found = answer.json()["workers"]
    assert isinstance(found, int)
    return found


@pytest.fixture(scope="module")
def hers(stack: Stack) -> Hers:
    """Alice's and bob's things are made in turn, so that hers stand between his in every order."""
    owners = {BOB: furnish(stack, BOB), ALICE: furnish(stack, ALICE)}
    stack.kill_worker(stack.workers[0])
    wait_for(lambda: _workers(stack) == 0, 20, "the worker to count as gone")
    for key, has in owners.items():
        begin(stack, key, has)
    queued_job(stack, BOB)
    return owners[ALICE]


@pytest.fixture(scope="module")
def routes(stack: Stack) -> set[Route]:
    document = requests.get(f"{stack.url}/openapi.json", timeout=5).json()
    return {(method, path) for path, operations in document["paths"].items() for method in operations}


def test_every_route_is_of_one_kind(routes: set[Route]) -> None:
    kinds = [OPEN, SHARED, OWN, LISTS, CREATE, ONE, ADMINS]
    assert routes == set().union(*kinds)
    assert sum(map(len, kinds)) == len(routes)


def test_a_quota_is_told_to_its_owner(stack: Stack, hers: Hers) -> None:  # noqa: ARG001  she has spent
    told = [json.loads(send(stack, "get", "/v1/quota", key).body)["owner"] for key in (ALICE, BOB)]
    assert told == ["alice", "bob"]


def test_without_a_key_nothing_is_told_apart(stack: Stack, routes: set[Route], hers: Hers) -> None:
    for method, path in routes - OPEN:
        for key in (None, "wrong"):
            answers = []
            for name in (*hers.ids, "absent"):
                target = path.replace("{", "").replace("}", "") if "{" not in path else _fill(path, name)
                answers.append(without(send(stack, method, target, key), name))
            assert {answer.status for answer in answers} == {401}
            assert all(answer == answers[0] for answer in answers)
            assert answers[0].headers["www-authenticate"] == "Bearer"


def _fill(path: str, name: str) -> str:
    before, _, rest = path.partition("{")
    return before + quote(name, safe="") + rest.partition("}")[2]


def everything(stack: Stack, hers: Hers) -> list[Answer]:
    """All that alice can read of hers."""
    paths = [f"/v1/{kind}/{name}" for kind in Hers._fields for name in getattr(hers, kind)]
    paths += [f"/v1/files/{name}/content" for name in hers.files] + [path for _, path in LISTS]
    return [send(stack, "get", path, ALICE) for path in paths]


several = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_not_yours_is_not_there(stack: Stack, hers: Hers) -> None:
    """Whatever the route, the method, the kind of id and what is added to it."""
    before = everything(stack, hers)
    assert {answer.status for answer in before} == {200}

    @several
    @given(
        st.sampled_from(sorted(ONE)),
        st.sampled_from(hers.ids),
        st.sampled_from(TAILS) | st.text(max_size=8),
        st.sampled_from(METHODS) | st.none(),
        st.sampled_from([BOB, ADMIN]),
    )
    def same(route: Route, name: str, tail: str, method: str | None, key: str) -> None:
        def ask(one: str) -> Answer:
            tail_ = quote(tail.encode("utf-8", "surrogatepass"), safe="/")
            target = _fill(route[1], one).replace(quote(one, safe=""), quote(one, safe="") + tail_)
            return without(send(stack, method or route[0], target, key), one)

        found = ask(name)
        assert found == ask(absent(name))
        assert found.status in {307, 400, 404, 405}

    same()
    in_redis = [tail for tail in TAILS if tail == "" or tail.startswith(":")]  # as its keys go on
    for (method, path), name, tail in itertools.product(ONE, hers.ids, in_redis):
        answers = [
            without(send(stack, method, _fill(path, one + tail), BOB), one) for one in (name, absent(name))
        ]
        assert answers[0] == answers[1]
        assert answers[0].status == 404
    assert everything(stack, hers) == before


def test_lists_tell_nothing_by_their_cursors(stack: Stack, hers: Hers) -> None:
    seen: set[bool] = set()

    @several
    @given(
        st.sampled_from(sorted(LISTS)),
        st.sampled_from(hers.ids),
        st.fixed_dictionaries(
            {},
            optional={
                "limit": st.integers(1, 5),
                "order": st.sampled_from(["asc", "desc"]),
                "purpose": st.sampled_from(["batch", "batch_output"]),
            },
        ),
    )
    def same(route: Route, name: str, query: dict[str, Any]) -> None:
        def ask(one: str) -> Answer:
            return without(send(stack, "get", f"{route[1]}?{urlencode({**query, 'after': one})}", BOB), one)

        found = ask(name)
        assert found == ask(absent(name))
        assert found.status == 200
        listed = json.loads(found.body)["data"]
        seen.add(bool(listed))
        assert not {row["id"] for row in listed} & set(hers.ids)

    same()
    assert seen == {True, False}, "some cursors stand before things of his, some after"


def test_a_batch_of_anothers_file_is_a_batch_of_none(stack: Stack, hers: Hers) -> None:
    before = everything(stack, hers)
    count = len(json.loads(send(stack, "get", "/v1/batches", BOB).body)["data"])

    @several
    @given(
        st.sampled_from(hers.ids), st.sampled_from(TAILS) | st.text(max_size=8), st.sampled_from([BOB, ADMIN])
    )
    def same(name: str, tail: str, key: str) -> None:
        def ask(one: str) -> Answer:
            body = {"input_file_id": one + tail, "endpoint": CHAT, "completion_window": "24h"}
            return without(send(stack, "post", "/v1/batches", key, json.dumps(body).encode()), one)

        found = ask(name)
        assert found == ask(absent(name))
        assert found.status in {400, 404}

    same()
    assert len(json.loads(send(stack, "get", "/v1/batches", BOB).body)["data"]) == count
    assert everything(stack, hers) == before


def test_what_is_about_the_fleet_is_for_administration(stack: Stack) -> None:
    for method, path in sorted(ADMINS):
        answers = [
            without(send(stack, method, _fill(path, name) if "{" in path else path, key), name)
            for name in ("sim", "unknown")
            for key in (ALICE, BOB)
        ]
        assert {answer.status for answer in answers} == {403}
        assert all(answer == answers[0] for answer in answers)
        assert send(stack, method, _fill(path, "unknown") if "{" in path else path, ADMIN).status in {
            200,
            404,
        }


def test_what_is_shared_is_the_same_for_all(stack: Stack) -> None:
    for _, path in SHARED:
        answers = {send(stack, "get", path.replace("{model}", "m"), key).body for key in (ALICE, BOB, ADMIN)}
        assert len(answers) == 1
