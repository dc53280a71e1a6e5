import json
from pathlib import Path

import pytest

from shared.broker import HINT_VERSION, celery_settings, pack_hint, read_hint
from shared.config import Settings
from shared.errors import HintError

GOLDEN = Path(__file__).parents[1] / "golden" / "hint-v1.json"
REF = "batch_0190000000007000800000000000000a/7"


def test_the_hint_has_the_form_it_always_had() -> None:
    assert pack_hint(REF) == json.loads(GOLDEN.read_text())
    assert read_hint(json.loads(GOLDEN.read_text())).ref == REF


@pytest.mark.parametrize("raw", [None, [], {}, {"v": 1}, {"v": 1, "ref": 3}, {"v": 1, "ref": "a", "x": 1}])
def test_an_unknown_form_is_a_named_error(raw: object) -> None:
    with pytest.raises(HintError, match="form"):
        read_hint(raw)


def test_an_unknown_version_is_a_named_error() -> None:
    with pytest.raises(HintError, match=f"version {HINT_VERSION + 1}"):
        read_hint({"v": HINT_VERSION + 1, "ref": REF})


def settings(**changes: str) -> Settings:
    return Settings.model_validate(changes, by_name=False)


def test_the_api_gives_up_on_the_broker_within_its_second() -> None:
    options = celery_settings(settings(), "api")["broker_transport_options"]
    assert options["socket_timeout"] + options["socket_connect_timeout"] < 1
    assert options["max_retries"] == 0


def test_a_worker_killed_in_a_sweep_keeps_the_others_from_sweeping_for_seconds_only() -> None:
    options = celery_settings(settings(), "worker")["broker_transport_options"]
    assert options["unacked_mutex_expire"] <= 10


def test_any_broker_may_carry_the_hints() -> None:
    conf = celery_settings(settings(BROKER_URL="amqp://guest@127.0.0.1//"), "worker")
    assert (conf["broker_url"], conf["broker_transport_options"]) == ("amqp://guest@127.0.0.1//", {})
    assert celery_settings(settings(REDIS_URL="redis://r:1/2"), "worker")["broker_url"] == "redis://r:1/2"


def test_each_queue_has_a_routing_key_of_its_own() -> None:
    queues = celery_settings(settings(), "worker")["task_queues"]
    assert [(q.name, q.routing_key) for q in queues] == [("interactive", "interactive"), ("batch", "batch")]
