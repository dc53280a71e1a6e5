"""`routing` in a request, in a line and for a whole batch, through the stock SDK; the simulator tells who was asked for what."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from support.batches import line, outcomes, submit, wait_for_end
from support.stack import Stack, running_stack

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Three providers of one model, of which c has another as well."""

    def configure(stack: Stack) -> None:
        providers = [
            {
                "id": name,
                "endpoint": stack.simulator.base_url_of(name),
                "priority": n,
                "models": {"m": "m", "fast": "small"} if name == "c" else {"m": "m"},
            }
            for n, name in enumerate(NAMES)
        ]
        stack.configure(providers)

    with running_stack(workers=1, configure=configure) as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(stack: Stack) -> None:
    """What one test has put out of service is back for the next."""
    stack.simulator.reset()
    for name in NAMES:
        requests.post(f"{stack.base_url}/providers/{name}/enable", timeout=5).raise_for_status()


def ask(stack: Stack, **routing: Any) -> Any:
    return stack.client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], extra_body={"routing": routing}
    )


def asked(stack: Stack) -> Counter[tuple[str, str]]:
    """Who, and for which model."""
    return Counter((call["persona"], call["model"]) for call in stack.simulator.calls())


def test_a_request_names_the_only_providers_and_its_strategy(stack: Stack) -> None:
    for _ in range(6):
        ask(stack, providers=["b", "c"], strategy="failover")
    assert asked(stack) == {("b", "m"): 6}


def test_what_no_provider_can_serve_now_is_asked_for_by_another_name(stack: Stack) -> None:
    stack.simulator.patch("a", outage="401")
    answer = ask(stack, providers=["a", "c"], strategy="failover", models=["fast"])
    assert answer.choices[0].message.content
    assert asked(stack)[("a", "m")] <= 1
    assert asked(stack)[("c", "m")] == 1
    stack.simulator.patch("c", models=["small"])
    ask(stack, providers=["a", "c"], strategy="failover", models=["fast"])
    assert asked(stack)[("c", "small")] == 1


def test_names_that_are_not_there_are_a_400_with_their_place(stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(stack, providers=["nobody"])
    assert (raised.value.code, raised.value.param) == ("invalid_routing", "routing.providers")
    assert "there are: a, b, c" in raised.value.message
    assert stack.simulator.calls() == []


def test_a_batch_says_it_for_all_its_lines_and_a_line_for_itself(stack: Stack) -> None:
    rows = [line(f"j{n}", f"job {n}", model="m") for n in range(20)]
    rows[7]["body"]["routing"] = {"providers": ["a"]}
    batch = submit(stack.client, rows, extra_body={"routing": {"strategy": "failover", "providers": ["b"]}})
    assert batch.model_extra is not None
    assert batch.model_extra["routing"] == {"strategy": "failover", "providers": ["b"], "models": None}
    ended = wait_for_end(stack.client, batch.id, 30)
    assert len(outcomes(stack.client, ended)) == 20
    assert Counter(who for who, _ in asked(stack).elements()) == {"b": 19, "a": 1}


def test_a_line_with_a_name_that_is_not_there_fails_validation(stack: Stack) -> None:
    rows = [line("good", "x", model="m"), line("bad", "y", model="m")]
    rows[1]["body"]["routing"] = {"strategy": "os.system"}
    batch = submit(stack.client, rows)
    ended = wait_for_end(stack.client, batch.id, 20)
    assert ended.status == "failed"
    assert ended.errors is not None
    assert ended.errors.data is not None
    (fault,) = ended.errors.data
    assert (fault.code, fault.line, fault.param) == ("invalid_routing", 2, "body.routing.strategy")
