"""`/metrics` and health: on the API's own port, and on an address of their own."""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from support.owners import ADMIN, ALICE, bearer, running_with_keys
from support.stack import Stack, free_port, running_stack
from support.waiting import wait_for

TOKEN = "scrape-me-not"  # a test's
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def value(text: str, name: str) -> float:
    found = [row.split()[1] for row in text.splitlines() if row.split(" ")[0] == name]
    assert len(found) == 1, text
    return float(found[0])


@contextmanager
def connections(port: int, count: int) -> Iterator[None]:
    """Clients that have asked once and keep their connections."""
    with ExitStack() as opened:
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            opened.callback(connection.close)
            connection.request("GET", "/health")
            connection.getresponse().read()
        yield


def scrape(url: str, **headers: str) -> requests.Response:
    return requests.get(f"{url}/metrics", headers={"Connection": "close", **headers}, timeout=5)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=0) as running:
        yield running


def test_without_keys_the_api_itself_serves_it(stack: Stack) -> None:
    answer = scrape(stack.url)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE llm_active_connections gauge" in answer.text
    assert "_created" not in answer.text
    assert value(answer.text, "process_open_fds") > 0
    assert scrape(stack.url, Accept=OPEN_METRICS).text.endswith("# EOF\n")
    assert scrape(stack.url, Host="evil.example").status_code == 403


def test_connections_are_counted_while_they_are_open(stack: Stack) -> None:
    def open_now() -> int:
        return int(value(scrape(stack.url).text, "llm_active_connections")) - 1  # the scrape's own

    wait_for(lambda: open_now() == 0, 5, "earlier connections to go")
    with connections(stack.port, 7):
        assert open_now() == 7
    wait_for(lambda: open_now() == 0, 5, "the connections to go")


def test_with_keys_only_an_admin_may_scrape() -> None:
    with running_with_keys(workers=0) as stack:
        assert [
            scrape(stack.url, **headers).status_code for headers in ({}, bearer(ALICE), bearer(ADMIN))
        ] == [
            401,
            401,
            200,
        ]


def test_with_a_token_only_the_token_and_an_admin_may() -> None:
    with running_with_keys(workers=0, METRICS_TOKEN=TOKEN) as stack:
        headers: list[dict[str, str]] = [{}, bearer(ALICE), bearer("x" + TOKEN), bearer(ADMIN), bearer(TOKEN)]
        assert [scrape(stack.url, **each).status_code for each in headers] == [401, 401, 401, 200, 200]
        assert requests.get(f"{stack.base_url}/files", headers=bearer(TOKEN), timeout=5).status_code == 401
        assert TOKEN not in stack.log("api")


def test_on_an_address_of_its_own() -> None:
    port = free_port()
    env = {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": str(port), "METRICS_TOKEN": TOKEN}
    with running_with_keys(workers=1, **env) as stack:
        url = f"http://127.0.0.1:{port}"
        assert scrape(stack.url, **bearer(ADMIN)).status_code == 404, "then the API's own port has it no more"
        assert scrape(url).status_code == 401
        assert scrape(url, **bearer(ALICE)).status_code == 401
        with connections(stack.port, 3):
            text = scrape(url, **bearer(TOKEN)).text
            assert value(text, "llm_active_connections") == 3, "the API's, not the internal listener's"
        assert requests.get(f"{url}/health", timeout=5).json()["status"] == "ok"
        assert requests.get(f"{url}/health/ready", timeout=5).json()["workers"] == 1, (
            "inside, nothing is kept back"
        )
        for path in ("/v1/files", "/docs", "/openapi.json"):
            assert requests.get(f"{url}{path}", headers=bearer(ADMIN), timeout=5).status_code == 404
        assert requests.get(f"{url}/health", headers={"Host": "evil.example"}, timeout=5).status_code == 403


def test_a_second_api_process_needs_a_metrics_port_of_its_own() -> None:
    port = free_port()
    with running_stack(workers=0, METRICS_HOST="127.0.0.1", METRICS_PORT=str(port)) as stack:
        stack.env["SERVER_PORT"] = "0"
        process = stack._spawn("second", "api")
        assert process.wait(20) == 1
        assert f"METRICS_PORT={port} on 127.0.0.1 is taken by another program" in stack.log("second")
        stack.env["METRICS_PORT"] = "0"
        third = stack._spawn("third", "api")
        wait_for(lambda: "Application startup complete" in stack.log("third"), 20, "it to serve")
        assert stack.log("third").count("http://127.0.0.1:") == 2, "both of its addresses are told"
        third.terminate()
        assert third.wait(20) in {0, -15}
        assert "Traceback" not in stack.log("third")


def test_an_address_that_is_not_this_machines() -> None:
    with running_with_keys(workers=0) as stack:
        stack.env |= {"SERVER_HOST": "192.0.2.1"}
        process = stack._spawn("elsewhere", "api")
        assert process.wait(20) == 1
        assert "SERVER_HOST=192.0.2.1: not an address of this machine" in stack.log("elsewhere")
