"""Sums, percentiles, prices, exit codes and wording: the arithmetic behind what the command line shows."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.contract_server import batch

from api.cli import figures
from api.cli.bound import bound, tariffs_of
from api.cli.demo_providers import Real
from api.cli.demo_text import price_lines, summary_table
from api.cli.figures import percentile
from api.cli.outcome import Exit, exit_of
from api.cli.view import batch_view
from api.cli.words import count, duration, printable, size, usd
from shared.catalogue import Catalogue, Price
from shared.prices import of_price


def line(provider: str, duration_s: float, cost: str | None = "0.001", text: str = "An answer.") -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    body = {
        "choices": [{"message": {"content": text}}],
        "usage": usage,
        "system_fingerprint": "simulated",
    }
    routing = {"provider": provider, "attempts": 1, "duration_s": duration_s, "cost_usd": cost}
    row = {
        "custom_id": f"{provider}-{duration_s}",
        "response": {"status_code": 200, "body": body},
        "routing": routing,
    }
    return json.dumps(row).encode()


def share(name: str, completed: int, failed: int, cost: str | None) -> dict[str, Any]:
    tokens = {"input_tokens": 10 * completed, "output_tokens": 4 * completed}
    return {"id": name, "completed": completed, "failed": failed, **tokens, "cost_usd": cost}


def test_rows_join_the_batchs_counts_with_the_lines_latencies() -> None:
    reading = figures.read([line("fast", 0.1), line("fast", 0.3), line("slow", 0.9)])
    view = batch_view(
        batch(
            total=4,
            completed=3,
            failed=1,
            providers=[share("fast", 2, 1, "0.02"), share("slow", 1, 0, "0.01")],
        )
    )
    fast, slow, everything = figures.rows(view, reading)
    assert (fast.completed, fast.failed, fast.input_tokens, fast.cost_usd) == (2, 1, 20, Decimal("0.02"))
    assert (fast.p50_s, fast.p95_s, slow.p50_s) == (0.1, 0.3, 0.9)
    assert (everything.completed, everything.failed, everything.input_tokens) == (3, 1, 30)
    assert (everything.p50_s, everything.p95_s, everything.cost_usd) == (0.3, 0.9, Decimal("0.03"))
    assert reading.simulated == 3
    assert reading.example == ("fast-0.1", "An answer.")


def test_without_extensions_of_the_wire_the_lines_tell_what_they_can() -> None:
    plain = {"id": "b", "status": "completed", "request_counts": {"total": 2, "completed": 2, "failed": 0}}
    reading = figures.read([line("fast", 0.1), line("slow", 0.2, cost=None)])
    fast, slow, everything = figures.rows(batch_view(plain), reading)
    assert (fast.completed, fast.input_tokens, fast.cost_usd) == (1, 10, Decimal("0.001"))
    assert (slow.completed, slow.cost_usd) == (1, None)
    assert (everything.input_tokens, everything.cost_usd) == (20, None)
    bare = b'{"custom_id": "1", "response": {"status_code": 200, "body": {"choices": [{"text": "t"}]}}}'
    (only,) = figures.rows(batch_view(plain), figures.read([bare]))
    assert (only.name, only.completed, only.cost_usd, only.p50_s) == ("all", 2, None, None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"response": 1, "routing": "x"}',
        b'{"response": {"body": {"choices": [1]}}}',
    ],
)
def test_odd_lines_are_borne(raw: bytes) -> None:
    assert figures.read([raw]).example is None


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], fraction: float) -> None:
    found = percentile(values, fraction)
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-9
    assert sum(value < found for value in values) <= fraction * len(values)


def test_percentiles_of_few() -> None:
    assert percentile([], 0.5) is None
    assert (percentile([7.0], 0.5), percentile([7.0], 0.95)) == (7.0, 7.0)
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_the_summary_is_a_table() -> None:
    view = batch_view(batch(total=3, completed=3, providers=[share("fast", 3, 0, "0.03")]))
    out = io.StringIO()
    summary_table(view, figures.rows(view, figures.read([line("fast", 0.25)])), Console(file=out, width=40))
    assert "batch_1: completed in 12 s" in out.getvalue()
    for cell in ("fast", "3", "30", "12", "$0.03", "0.25 s", "all"):
        assert f" {cell} " in out.getvalue()


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [
        ("completed", 0, Exit.COMPLETED),
        ("completed", 1, Exit.REFUSED),
        ("failed", 0, Exit.NOT_RUN),
        ("expired", 0, Exit.NOT_RUN),
        ("cancelled", 2, Exit.NOT_RUN),
    ],
)
def test_exit_codes(status: str, failed: int, code: Exit) -> None:
    assert exit_of(batch_view(batch(status, 3, 3 - failed, failed))) is code


@pytest.mark.parametrize(
    "raw", [{}, {"request_counts": None, "errors": [], "providers": {}, "usage": 3, "cost_usd": "NaN"}]
)
def test_a_batch_is_read_tolerantly(raw: dict[str, Any]) -> None:
    view = batch_view(raw)
    assert (view.total, view.faults, view.providers, view.cost_usd, view.ended) == (0, (), (), None, False)


def test_the_bound_counts_every_byte_and_the_dearest_price() -> None:
    prices = [
        of_price(Price(input=Decimal("0.03"))),
        of_price(Price(input=Decimal("0.001"), output=Decimal("0.2"))),
    ]
    limit = bound(1000, 500_001, 60, prices)
    assert (limit.input_tokens, limit.output_tokens) == (270_001, 60_000)
    assert limit.usd == max(Decimal("9.90003"), Decimal("12.270001"))
    assert bound(1000, 500_001, 60, [*prices, None]).usd is None
    assert bound(1, 1, 1, []).usd is None


def test_prices_are_those_of_the_providers_that_may_be_asked() -> None:
    common = {"endpoint": "http://h/v1", "models": {"m": "m"}}
    catalogue = Catalogue.model_validate(
        {
            "providers": [
                {"id": "a", "cost_per_1k_tokens": "0.01", **common},
                {"id": "b", "enabled": False, **common},
                {"id": "c", **common, "models": {"other": "x"}},
                {"id": "d", **common, "prices": {"m": {"input": "0.02"}}},
            ]
        }
    )
    assert tariffs_of(catalogue, "m") == [
        of_price(Price(input=Decimal("0.01"))),
        of_price(Price(input=Decimal("0.02"))),
    ]


def test_a_list_price_is_said_to_be_one() -> None:
    raw = {"id": "a", "endpoint": "https://api.openai.com/v1"}
    catalogue = Catalogue.model_validate({"providers": [raw]})
    limit = bound(1000, 500_000, 60, tariffs_of(catalogue, "gpt-4o-mini"))
    assert limit.usd == Decimal("0.0765")
    said = price_lines(Real(Path("p.yaml"), catalogue), "gpt-4o-mini", 1000, limit)[-1]
    assert said.startswith(
        "cost: at most $0.0765, at the dearest price in p.yaml and the vendors' price lists; "
    )
    own = Catalogue.model_validate({"providers": [{**raw, "cost_per_1k_tokens": "0.001"}]})
    limit = bound(1000, 500_000, 60, tariffs_of(own, "gpt-4o-mini"))
    said = price_lines(Real(Path("p.yaml"), own), "gpt-4o-mini", 1000, limit)[-1]
    assert said.startswith("cost: at most $0.33, at the dearest price in p.yaml; ")


def test_wording() -> None:
    assert [count(1, "job"), count(1000, "job")] == ["1 job", "1,000 jobs"]
    assert [size(1), size(1023), size(4096), size(200 * 2**20), size(2**45)] == [
        "1 byte",
        "1,023 bytes",
        "4.0 KiB",
        "200.0 MiB",
        "32768.0 GiB",
    ]
    assert [duration(s) for s in (0.314, 5, 42.4, 185, 7470)] == [
        "0.31 s",
        "5 s",
        "42 s",
        "3 min 5 s",
        "2 h 4 min",
    ]
    amounts = [None, "0", "0.0000123456", "0.0312", "1.5", "12.3456", "1234567.8"]
    assert [usd(None if text is None else Decimal(text)) for text in amounts] == [
        "unknown",
        "$0.00",
        "$0.00001235",
        "$0.0312",
        "$1.50",
        "$12.35",
        "$1,234,567.80",
    ]


@given(st.text())
def test_foreign_text_cannot_command_the_terminal(text: str) -> None:
    shown = printable(text, 50)
    assert shown.isprintable()
    assert len(shown) <= 50
