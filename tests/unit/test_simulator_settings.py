import json
from typing import Any

import pytest

from shared.errors import ConfigError
from workers.simulator.behaviour import Behaviour, changed
from workers.simulator.options import read_behaviours
from workers.simulator.personas import Personas


def faults_of(settings: dict[str, Any], **start: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        changed(Behaviour(**start), settings, "here")
    return caught.value.faults


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"error_rate": 1.1}, "error_rate"),
        ({"error_rate": "lots"}, "error_rate"),
        ({"error_rate": float("nan")}, "error_rate"),
        ({"error_rate": 0.6, "drop_rate": 0.5}, "add up to 1.1"),
        ({"latency_s": -1}, "latency_s"),
        ({"latency_p95_s": 1}, "latency_p95_s (1) needs a latency_s"),
        ({"latency_s": 2, "latency_p95_s": 1}, "latency_p95_s (1) needs a latency_s"),
        ({"outage": "flood"}, "outage"),
        ({"error_statuses": []}, "error_statuses"),
        ({"error_statuses": [200]}, "error_statuses"),
        ({"rpm": 0}, "rpm"),
        ({"rules": [{"match": "("}]}, "rules.0.match"),
        ({"rules": [{"status": 500}]}, "rules.0.match"),
        ({"rules": [{"match": "a", "status": 302}]}, "between 400 and 599"),
        ({"rules": [{"match": "a", "status": 500, "drop": True}]}, "not several"),
        ({"rules": [{"match": "a", "times": 0}]}, "rules.0.times"),
        ({"rules": [{"match": "a", "sleep": 1}]}, "rules.0.sleep"),
        ({"errors": 0.1}, "did you mean error_rate?"),
        ({"latency": 0.1}, "did you mean latency_s?"),
        ({"xyz": 1}, "there are latency_s"),
    ],
)
def test_a_fault_is_named(settings: dict[str, Any], said: str) -> None:
    (fault,) = faults_of(settings)
    assert fault.startswith("here: ")
    assert said in fault


def test_all_faults_are_named_at_once() -> None:
    assert len(faults_of({"error_rate": 2, "rpm": -1, "nonsense": 1, "outage": "x"})) == 4


def test_a_change_leaves_the_rest_alone_and_null_takes_a_setting_back() -> None:
    before = Behaviour(latency_s=0.3, rpm=5)
    after = changed(before, {"error_rate": 0.1, "rpm": None}, "here")
    assert (after.latency_s, after.error_rate, after.rpm) == (0.3, 0.1, None)
    assert before == Behaviour(latency_s=0.3, rpm=5)


def test_a_behaviour_shown_as_json_can_be_given_back() -> None:
    rules = [{"match": "^a|b", "status": 500, "times": 2}, {"match": "c", "latency_s": 30}]
    behaviour = changed(Behaviour(), {"rules": rules, "models": ["m"]}, "here")
    shown = json.loads(json.dumps(behaviour.model_dump(mode="json")))
    assert shown["rules"][0]["match"] == "^a|b"
    assert changed(Behaviour(), shown, "here") == behaviour


def test_personas_take_the_options_and_add_their_own() -> None:
    found = read_behaviours(
        {"latency_s": "0.1", "error_statuses": "500,529", "models": "a,b"},
        ['{"match": "^x", "status": 500}'],
        [
            "fast:latency_s=0.01,error_statuses=503+429",
            "fast:error_rate=0.5",
            'odd:{"rules": [], "rpm": 3}',
            "plain",
        ],
    )
    assert set(found) == {"default", "fast", "odd", "plain"}
    default, fast, odd = found["default"], found["fast"], found["odd"]
    assert (default.latency_s, default.error_statuses, default.models) == (0.1, (500, 529), ("a", "b"))
    assert (fast.latency_s, fast.error_rate, fast.error_statuses) == (0.01, 0.5, (503, 429))
    assert (odd.rules, odd.rpm, odd.latency_s) == ((), 3, 0.1)
    assert found["plain"] == default
    assert len(fast.rules) == 1


def test_every_fault_of_the_command_line_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read_behaviours(
            {"error_rate": "2"},
            [],
            ["a b:latency_s=1", "x:latency", "y:latency=1", "z:{", "l:[1]", "w:{}", 'v:{"rpm": 0}'],
        )
    said = "\n".join(caught.value.faults)
    for part in (
        "options: error_rate",
        "--persona a b",
        "x: latency:",
        "y: latency:",
        "z: not JSON",
        "l:",
        "v: rpm",
    ):
        assert part in said
    with pytest.raises(ConfigError, match="--rule"):
        read_behaviours({}, ["nonsense"], [])


def test_a_persona_comes_to_life_with_the_behaviour_of_the_start() -> None:
    personas = Personas({"default": Behaviour(latency_s=1)}, 10, 0.0)
    personas.patch("default", {"latency_s": 2}, 0.0)
    assert personas.get("new", 0.0).behaviour.latency_s == 1
    with pytest.raises(ConfigError):
        personas.get("no/slash", 0.0)


def test_a_change_to_all_is_for_those_to_come_too_until_the_reset() -> None:
    personas = Personas({"default": Behaviour(), "a": Behaviour(latency_s=1)}, 10, 0.0)
    personas.patch("*", {"outage": "503"}, 0.0)
    assert [personas.get(name, 0.0).behaviour.outage for name in ("default", "a", "b")] == ["503"] * 3
    assert personas.get("a", 0.0).behaviour.latency_s == 1
    personas.reset(0.0)
    assert [personas.get(name, 0.0).behaviour.outage for name in ("default", "a", "b", "c")] == ["none"] * 4


def test_a_change_that_does_not_suit_one_changes_none() -> None:
    personas = Personas({"default": Behaviour(), "a": Behaviour(error_rate=0.8)}, 10, 0.0)
    with pytest.raises(ConfigError, match=r"persona a: .*add up"):
        personas.patch("*", {"drop_rate": 0.5}, 0.0)
    assert personas.get("default", 0.0).behaviour == Behaviour()


def test_there_is_an_end_to_personas() -> None:
    personas = Personas({"default": Behaviour()}, 10, 0.0)
    for n in range(999):
        personas.get(f"p{n}", 0.0)
    with pytest.raises(ConfigError, match="1000 personas"):
        personas.get("straw", 0.0)
