"""What `llm-edge providers` shows of a provider, from whatever a server says."""

from typing import Any

import pytest

from api.cli.providers import row, table, why
from api.provider_schema import ProviderObject
from shared import condition
from shared.breaker import Circuit, State
from shared.catalogue import Provider
from shared.condition import Condition, LastError, bucket_of
from shared.gate import Seen

PROVIDER = Provider(id="sim", endpoint="http://127.0.0.1:1")
NOW = 1000.0
ERROR = LastError(code="invalid_api_key", message="no", at=900.0)


def shown(c: Condition, **more: Any) -> dict[str, Any]:
    seen = Seen(c, more.pop("answered", 0), more.pop("failed", 0), more.pop("buckets", {}))
    return ProviderObject.of(PROVIDER, seen, 3, NOW).model_dump(mode="json")


OPEN = Circuit(state=State.OPEN, failures=5, until=1012.0, reason="provider_failed", generation=1)
DISABLED = Condition(disabled=True)
REFUSED = condition.refused(Condition(), "key:k", ERROR, 300.0)
NO_MODEL = condition.refused(Condition(), condition.model_scope("m", "o"), ERROR, 300.0)
COOLING = condition.cooled(Condition(), "sim", now=NOW, retry_after_s=7.0)
FAILING = condition.failed(Condition(), ERROR)


@pytest.mark.parametrize(
    ("found", "state", "reason"),
    [
        (Condition(), "serving", "serving"),
        (Condition(breakers={"sim": OPEN}), "open", "provider_failed, tried again in 12 s"),
        (DISABLED, "disabled", ""),
        (REFUSED, "out of service", "key refused (invalid_api_key), tried again in 200 s"),
        (NO_MODEL, "serving", "model m refused (invalid_api_key), tried again in 200 s"),
        (COOLING, "closed", "429, cools down for 7 s"),
        (FAILING, "serving", "1 failures in a row: invalid_api_key"),
    ],
)
def test_state_and_reason(found: Condition, state: str, reason: str) -> None:
    raw = shown(found)
    assert (row(raw, NOW)[1], why(raw, NOW)) == (state, reason)


def test_health_stands_in_columns() -> None:
    c = condition.answered(Condition(), duration_s=0.5, at=NOW)
    raw = shown(c, answered=3, failed=1, buckets={bucket_of(0.5): 3})
    assert row(raw, NOW)[2:10] == ["100.0 %", "0.50 s", *["0.50 s"] * 3, "1", "0", "3"]
    assert raw["health"]["availability"] == 0.75


def test_a_server_that_says_less_is_borne() -> None:
    assert table({"data": [{"id": "a"}, {}]}, NOW).row_count == 2
    assert table({}, NOW).row_count == 0


def test_after_another_key_has_served_a_refused_one_is_told_and_no_more() -> None:
    served = condition.answered(REFUSED, duration_s=0.1, at=950.0)
    raw = shown(served)
    assert raw["serving"]
    assert raw["out_of_service"][0]["code"] == "invalid_api_key"
