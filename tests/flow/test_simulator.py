"""The simulator from outside: the official SDK and raw sockets against the real process."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import openai
import psutil
import pytest
import requests
from openai import OpenAI
from openai.types.chat import ChatCompletion
from support.simulator import Simulator, listening, running_simulator, start_simulator
from support.waiting import wait_for

PROMPT_S = 5.0
KEY = "sk-made-up-for-a-test"


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with running_simulator("--persona", "quick:completion_tokens=5,completion_tokens_spread=0") as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Simulator:
    running.reset()
    return running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[OpenAI]:
    with client_of(simulator.base_url) as client:
        yield client


def client_of(base_url: str, **more: Any) -> OpenAI:
    return OpenAI(base_url=base_url, api_key=KEY, max_retries=0, **{"timeout": 20, **more})


def ask(client: OpenAI, prompt: str = "hello", **more: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": prompt}], stream=False, **more
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def outcome(client: OpenAI, prompt: str) -> str:
    """In a word: the status, `drop` or `malformed`, and for answers their text."""
    try:
        return ask(client, prompt).choices[0].message.content or ""
    except openai.APIStatusError as exc:
        return str(exc.status_code)
    except openai.APIConnectionError:
        return "drop"
    except (json.JSONDecodeError, openai.APIResponseValidationError):
        return "malformed"


@contextmanager
def asking(base_url: str, prompt: str = "hello", timeout_s: float = 30) -> Iterator["Future[str]"]:
    """One call in another thread."""
    with ThreadPoolExecutor(1) as pool, client_of(base_url, timeout=timeout_s) as client:
        yield pool.submit(outcome, client, prompt)


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_chat_is_answered(client: OpenAI) -> None:
    answer = ask(client, "Summarise this function: def add(a, b): return a + b")
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "m", "simulated")
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert (choice.message.content or "").startswith("[simulated] `add` ")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None


def test_max_tokens_cut_the_answer(client: OpenAI) -> None:
    answer = ask(client, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_the_older_endpoint_and_the_models(client: OpenAI, simulator: Simulator) -> None:
    answer = client.completions.create(model="m", prompt=["one", "two"], max_tokens=9)
    assert (answer.object, len(answer.choices), answer.system_fingerprint) == (
        "text_completion",
        2,
        "simulated",
    )
    assert [m.id for m in client.models.list()] == ["simulated"]
    simulator.patch(models=["a", "b"])
    assert [m.id for m in client.models.list()] == ["a", "b"]
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client)
    assert caught.value.code == "model_not_found"


def test_every_answer_has_a_request_id_that_is_the_calls_number(client: OpenAI, simulator: Simulator) -> None:
    for _ in range(2):
        assert ask(client)
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    assert raw.headers["x-request-id"] == "req-sim-3"
    assert simulator.calls()[-1]["n"] == 3


def test_streams_and_bad_requests_are_refused_by_name(client: OpenAI, simulator: Simulator) -> None:
    with pytest.raises(openai.BadRequestError, match="does not stream") as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    assert caught.value.param == "stream"
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=[])
    assert [call["status"] for call in simulator.calls()] == [400, 400]
    url = f"{simulator.base_url}/chat/completions"
    assert requests.post(url, data=b"{", timeout=5).status_code == 400
    assert requests.get(url, timeout=5).status_code == 405
    assert requests.get(f"{simulator.url}/nowhere", timeout=5).json()["error"]["code"] == "not_found"
    assert requests.get(f"{simulator.url}/health", timeout=5).json() == {"status": "ok", "simulated": True}


def test_a_body_that_comes_in_pieces(simulator: Simulator) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "é" * 300_000}]}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    assert requests.post(f"{simulator.base_url}/chat/completions", data=pieces(), timeout=10).ok
    (call,) = simulator.calls()
    assert call["body_sha256"] == sha256(body).hexdigest()[:16]


# --- faults ---------------------------------------------------------------------------------------------------------


def test_an_outage_and_its_end(client: OpenAI, simulator: Simulator) -> None:
    assert ask(client)
    simulator.patch(outage="503", retry_after_s=7)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "7")
    with pytest.raises(openai.InternalServerError):
        client.models.list()
    simulator.patch(outage="401")
    with pytest.raises(openai.AuthenticationError) as refused:
        ask(client)
    assert refused.value.code == "invalid_api_key"
    simulator.patch(outage="429_quota")
    with pytest.raises(openai.RateLimitError) as broke:
        ask(client)
    assert broke.value.code == "insufficient_quota"
    simulator.patch(outage="drop")
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    simulator.patch(outage="none")
    assert ask(client)
    assert [call["status"] for call in simulator.calls()] == [200, 503, 401, 429, "dropped", 200]


def test_a_hanging_call_ends_with_the_hang(simulator: Simulator) -> None:
    simulator.patch(outage="hang")
    with asking(simulator.base_url) as answer:
        wait_for(lambda: [c["status"] for c in simulator.calls()] == ["hung"], PROMPT_S, "the call to hang")
        assert simulator.stats()["default"]["in_flight"] == 1
        simulator.patch(latency_s=0.01)  # a change that leaves the hang alone leaves the call alone
        assert (simulator.calls()[0]["status"], answer.done()) == ("hung", False)
        simulator.patch(outage="none")
        assert answer.result(PROMPT_S) == "503"
    (call,) = simulator.calls()
    assert (call["status"], call["ended_at"] > call["received_at"]) == (503, True)
    assert simulator.stats()["default"]["in_flight"] == 0


def test_a_client_that_leaves_is_noticed(simulator: Simulator) -> None:
    simulator.patch(rules=[{"match": "^hang", "hang": True}, {"match": "^slow", "latency_s": 60}])
    for prompt in ("hang", "slow"):
        with asking(simulator.base_url, prompt, timeout_s=0.3) as answer:
            assert answer.result(PROMPT_S) == "drop"
    wait_for(lambda: all(c["ended_at"] for c in simulator.calls()), PROMPT_S, "both calls to end")
    assert [call["status"] for call in simulator.calls()] == ["hung", "client_gone"]
    stats = simulator.stats()["default"]
    assert (stats["in_flight"], stats["by_status"]) == (0, {"hung": 1, "client_gone": 1})


def test_a_reset_frees_what_hangs(simulator: Simulator) -> None:
    simulator.patch(hang_rate=1)
    with asking(simulator.base_url) as answer:
        wait_for(simulator.calls, PROMPT_S, "the call")
        simulator.reset()
        assert answer.result(PROMPT_S) == "503"
    assert simulator.calls() == []
    assert simulator.stats()["default"]["calls"] == 0


def test_a_drop_closes_the_socket_without_a_byte(simulator: Simulator) -> None:
    simulator.patch(drop_rate=1)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    address = ("127.0.0.1", int(simulator.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(head + body)
        assert connection.recv(1000) == b""


def test_malformed_answers(client: OpenAI, simulator: Simulator) -> None:
    simulator.patch(malformed_rate=1)
    answer = requests.post(
        f"{simulator.base_url}/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
        timeout=5,
    )
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()
    assert outcome(client, "y") == "malformed"
    assert [(c["status"], c["completion_tokens"]) for c in simulator.calls()] == [(200, 0)] * 2


def test_rules(client: OpenAI, simulator: Simulator) -> None:
    simulator.patch(
        rules=[
            {"match": "^poison", "status": 500},
            {"match": "^twice", "status": 529, "times": 2, "retry_after_s": 0.25},
            {"match": "^slow", "latency_s": 0.4},
            {"match": "^gone", "drop": True},
        ]
    )
    assert [outcome(client, "poison") for _ in range(3)] == ["500"] * 3
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "twice")
    headers = caught.value.response.headers
    assert (headers["retry-after-ms"], headers["retry-after"]) == ("250", "1")
    assert outcome(client, "twice") == "529"
    assert outcome(client, "twice").startswith("[simulated]")
    assert outcome(client, "twice as nice") == "529", "each body has its own count"
    assert outcome(client, "gone") == "drop"
    assert ask(client, "slow")
    slow = simulator.calls()[-1]
    assert 0.39 <= slow["ended_at"] - slow["received_at"] < 1.5


def test_the_sdks_own_retries_get_through(simulator: Simulator) -> None:
    simulator.patch(rules=[{"match": "^twice", "status": 503, "times": 2, "retry_after_s": 0.02}])
    with client_of(simulator.base_url) as client:
        assert ask(client.with_options(max_retries=2), "twice")
    assert [call["status"] for call in simulator.calls()] == [503, 503, 200]


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_rate_limit_says_when_to_come_back(client: OpenAI, simulator: Simulator) -> None:
    simulator.patch(rpm=2)
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-reset-requests"] == "30s"
    assert ask(client)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    error = caught.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    assert 25_000 < int(error.response.headers["retry-after-ms"]) <= 30_000
    assert 25 <= int(error.response.headers["retry-after"]) <= 30
    simulator.patch(rpm=None, tpm=10)
    with pytest.raises(openai.RateLimitError, match="Request too large"):
        ask(client, "more than ten tokens, for certain, whoever counts them", max_tokens=20)


def test_calls_at_once_are_limited(simulator: Simulator) -> None:
    simulator.patch(concurrency=3, hang_rate=1)
    with ThreadPoolExecutor(3) as pool, client_of(simulator.base_url) as client:
        hanging = [pool.submit(outcome, client, f"{n}") for n in range(3)]
        wait_for(lambda: simulator.stats()["default"]["in_flight"] == 3, PROMPT_S, "three calls in flight")
        with pytest.raises(openai.RateLimitError, match="concurrent"):
            ask(client)
        simulator.patch(hang_rate=0)
        assert [answer.result(PROMPT_S) for answer in hanging] == ["503"] * 3
        assert ask(client)
    assert simulator.stats()["default"]["max_in_flight"] == 3


def test_calls_above_the_capacity_make_each_other_slow(simulator: Simulator) -> None:
    simulator.patch(
        capacity=2, latency_s=1.0
    )  # the sixth comes before the first has ended, on a busy machine too
    with ThreadPoolExecutor(6) as pool, client_of(simulator.base_url) as client:
        for answer in [pool.submit(ask, client, f"{n}") for n in range(6)]:
            answer.result(PROMPT_S)
    took = sorted(call["ended_at"] - call["received_at"] for call in simulator.calls())
    assert all(n <= it + 0.01 for n, it in zip([1, 1, 1.5, 2, 2.5, 3], took, strict=True))  # by two clocks


# --- personas and control -------------------------------------------------------------------------------------------


def test_personas_are_providers_of_their_own(simulator: Simulator) -> None:
    simulator.patch(persona="first", outage="503")
    with (
        client_of(simulator.base_url_of("first")) as first,
        client_of(simulator.base_url_of("quick")) as quick,
    ):
        assert outcome(first, "x") == "503"
        answer = ask(quick)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5
        assert [m.id for m in quick.models.list()] == ["simulated"]
    with client_of(simulator.base_url_of("unheard-of")) as other:
        assert outcome(other, "x").startswith("[simulated]")
    stats = simulator.stats()
    assert {name: stats[name]["by_status"] for name in ("default", "first", "quick", "unheard-of")} == {
        "default": {},
        "first": {"503": 1},
        "quick": {"200": 1},
        "unheard-of": {"200": 1},
    }
    assert [call["persona"] for call in simulator.calls()] == ["first", "quick", "unheard-of"]


def test_all_personas_change_at_once(simulator: Simulator) -> None:
    simulator.patch(persona="*", outage="503")
    for persona in ("default", "quick", "new-one"):
        with client_of(simulator.base_url_of(persona)) as client:
            assert outcome(client, "x") == "503"


def test_a_bad_change_names_every_fault_and_changes_nothing(simulator: Simulator) -> None:
    url = f"{simulator.url}/simulator/behaviour"
    before = requests.get(url, timeout=5).json()
    answer = requests.patch(
        url, json={"latency_s": 1, "error_rate": 7, "outage": "flood", "speed": 1}, timeout=5
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (len(error["faults"]), error["code"]) == (3, "invalid_behaviour")
    for name in ("error_rate", "outage", "speed"):
        assert name in error["message"]
    assert requests.get(url, timeout=5).json() == before
    for body in (b"", b"[]", b"{"):
        assert requests.patch(url, data=body, timeout=5).status_code == 400
    assert requests.patch(url, params={"persona": "a/b"}, json={}, timeout=5).status_code == 400
    for query in ({"after": "x"}, {"after": "-1"}, {"limit": "0"}, {"limit": "10001"}):
        assert requests.get(f"{simulator.url}/simulator/calls", params=query, timeout=5).status_code == 400


def test_the_control_surface_is_for_this_machine_only() -> None:
    others = [
        a.address for found in psutil.net_if_addrs().values() for a in found if a.family == socket.AF_INET
    ]
    address = next((a for a in others if not a.startswith("127.")), None)
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with running_simulator("--host", address) as simulator:
        assert requests.get(f"{simulator.url}/health", timeout=5).ok
        assert requests.get(f"{simulator.url}/simulator/stats", timeout=5).status_code == 403


# --- the witness ----------------------------------------------------------------------------------------------------


def test_the_witness_tells_what_it_saw(client: OpenAI, simulator: Simulator) -> None:
    answer = ask(client, "w" * 500, max_tokens=4)
    assert answer.usage is not None
    assert outcome(client, "again")
    first, second = simulator.calls()
    assert (first["n"], first["persona"], first["model"], first["status"]) == (1, "default", "m", 200)
    assert first["prompt"] == "w" * 120
    assert (first["prompt_tokens"], first["completion_tokens"]) == (answer.usage.prompt_tokens, 4)
    assert first["authorization_sha256"] == sha256(f"Bearer {KEY}".encode()).hexdigest()[:8]
    assert re.fullmatch("[0-9a-f]{16}", first["body_sha256"])
    assert first["received_at"] <= first["ended_at"] <= second["received_at"]
    assert simulator.calls(after=1) == [second]
    page = requests.get(f"{simulator.url}/simulator/calls", params={"limit": 1}, timeout=5).json()
    assert page == {"calls": [first], "last": 1}
    assert KEY not in json.dumps([first, second])


def test_the_witness_is_complete_under_200_concurrent_calls(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    calls, at_once = 1000, 200
    options = ("--latency-s", "0.5", "--log", str(file))
    with running_simulator(*options) as simulator, client_of(simulator.base_url) as client:
        with ThreadPoolExecutor(at_once) as pool:
            # the first wave is in flight together, whatever the machine; the rest follows at its own pace
            first = [pool.submit(outcome, client, f"{n}") for n in range(at_once)]
            wait_for(lambda: len(simulator.calls()) == at_once, 30, "200 calls")
            simulator.patch(latency_s=0.01)
            rest = list(pool.map(lambda n: outcome(client, f"{n}"), range(at_once, calls)))
            answers = [f.result(PROMPT_S) for f in first] + rest
        assert all(answer.startswith("[simulated]") for answer in answers)
        seen = simulator.calls()
        assert [call["n"] for call in seen] == list(range(1, calls + 1))
        assert sorted(int(call["prompt"]) for call in seen) == list(range(calls))
        assert {call["status"] for call in seen} == {200}
        stats = simulator.stats()["default"]
        assert (stats["calls"], stats["by_status"], stats["in_flight"]) == (calls, {"200": calls}, 0)
        assert stats["completion_tokens"] == sum(call["completion_tokens"] for call in seen)
        assert 100 < stats["max_in_flight"] <= at_once
        logged = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(logged, key=lambda call: call["n"]) == seen


def test_the_log_is_bounded() -> None:
    with running_simulator("--log-size", "10") as simulator, client_of(simulator.base_url) as client:
        for n in range(25):
            ask(client, f"{n}")
        assert [call["n"] for call in simulator.calls()] == list(range(16, 26))
        assert simulator.stats()["default"]["calls"] == 25


def test_two_runs_agree_whatever_the_order() -> None:
    options = (
        "--error-rate",
        "0.2",
        "--drop-rate",
        "0.1",
        "--malformed-rate",
        "0.1",
        "--error-statuses",
        "500,503,429",
    )
    prompts = [f"prompt {n % 120}" for n in range(240)]

    def run(seed: int, threads: int, order: list[str]) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {prompt: Counter() for prompt in order}
        with (
            running_simulator(*options, "--seed", str(seed)) as simulator,
            client_of(simulator.base_url) as client,
            ThreadPoolExecutor(threads) as pool,
        ):
            for prompt, said in zip(order, pool.map(lambda p: outcome(client, p), order), strict=True):
                found[prompt][said] += 1
        return found

    once = run(1, 1, prompts)
    assert run(1, 16, prompts[::-1]) == once
    assert run(2, 16, prompts) != once
    kinds = Counter(
        said if len(said) < 10 else "answer" for found in once.values() for said in found.elements()
    )
    assert set(kinds) == {"answer", "500", "503", "429", "drop", "malformed"}


# --- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_promptly_though_calls_hang(tmp_path: Path, sig: signal.Signals) -> None:
    out, file = tmp_path / "out", tmp_path / "calls.jsonl"
    process = start_simulator(out, "--outage", "hang", "--log", str(file))
    try:
        simulator = Simulator(listening(process, out), process.pid)
        with (
            asking(simulator.base_url) as answer,
            socket.create_connection(("127.0.0.1", int(simulator.url.rpartition(":")[2]))) as half,
        ):
            half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            wait_for(simulator.calls, PROMPT_S, "the call")
            started = monotonic()
            process.send_signal(sig)
            assert process.wait(PROMPT_S) == 0
            assert monotonic() - started < 2
            assert answer.result(PROMPT_S) == "drop"
    finally:
        process.kill()
        process.wait()
    assert re.fullmatch(r"listening http://127\.0\.0\.1:\d+\n", out.read_text()), "one line and no traceback"
    assert [json.loads(line)["status"] for line in file.read_text().splitlines()] == ["dropped"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--error-rate", "3", "--rpm", "x"], ["options: error_rate", "options: rpm"]),
        (
            ["--persona", "fast:latency=1"],
            ["--persona fast: latency: no such setting; did you mean latency_s?"],
        ),
        (["--rule", "nonsense"], ["--rule nonsense: not JSON"]),
        (["--log", "/nowhere/at/all"], ["--log /nowhere/at/all: No such file or directory"]),
        (["--host", "192.0.2.1"], ["cannot listen on 192.0.2.1:0"]),
    ],
)
def test_bad_options_are_named(options: list[str], said: list[str]) -> None:
    run = [sys.executable, "-m", "workers.simulator", "--port", "0", *options]
    found = subprocess.run(run, capture_output=True, text=True, check=False, timeout=20)
    assert found.returncode == 2
    assert found.stdout == ""
    for part in said:
        assert f"llm-edge simulate: {part}" in found.stderr


def test_the_help_names_the_program_and_every_setting() -> None:
    run = [sys.executable, "-m", "workers.simulator", "--help"]
    found = subprocess.run(
        run, capture_output=True, text=True, check=True, timeout=20, env={"COLUMNS": "120", "NO_COLOR": "1"}
    ).stdout
    assert "Usage: llm-edge simulate" in found
    for name in (
        "latency-p95-s",
        "error-statuses",
        "hang-rate",
        "outage",
        "rule",
        "persona",
        "seed",
        "log-size",
    ):
        assert f"--{name}" in found
