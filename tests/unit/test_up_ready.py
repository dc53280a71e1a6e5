"""When the stack is ready, and what the simulated providers are."""

import socket
from pathlib import Path

import pytest
import typer

from api.cli.up import bytes_of
from api.up.ready import judge, url_of, why_not_ready
from api.up.simulated import providers_text, simulator_argv
from shared.catalogue import load_catalogue
from shared.prices import tariff_of


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b'{"status": "ready", "redis": "ok", "workers": 2}', None),
        (200, b'{"status": "ready", "redis": "ok", "workers": 0}', "no worker has reported yet"),
        (
            503,
            b'{"status": "not_ready", "redis": "away", "workers": 0}',
            "the API is not ready (503, redis: away)",
        ),
        (404, b"<html>", "the API answers /health/ready with 404 and no JSON: is it another program's port?"),
        (200, b"[]", "the API answers /health/ready with 200 and no JSON: is it another program's port?"),
        (200, b'{"status": "ready", "redis": "ok"}', "the API does not say how many workers there are"),
    ],
)
def test_ready_takes_an_api_and_a_worker(status: int, body: bytes, reason: str | None) -> None:
    assert judge(status, body) == reason


def test_nobody_there_is_not_ready() -> None:
    with socket.socket() as bound:  # bound, but nobody listens
        bound.bind(("127.0.0.1", 0))
        assert why_not_ready("127.0.0.1", bound.getsockname()[1]) == "the API does not answer yet"


def personas(*options: str) -> dict[str, str]:
    """Name -> settings as the simulator will be told."""
    argv = simulator_argv(7001, options)
    told = [argv[place + 1] for place, word in enumerate(argv) if word == "--persona"]
    return dict(word.split(":", 1) for word in told)


def test_the_personas_are_of_different_speed_and_one_errs() -> None:
    assert personas() == {
        "fast": "latency_s=0.15,latency_p95_s=0.25",
        "steady": "latency_s=0.3,latency_p95_s=0.35",
        "cheap": "latency_s=0.6,latency_p95_s=1.2,error_rate=0.01",
    }


def test_options_for_all_personas_win_over_their_own() -> None:
    assert personas("--latency-s", "0", "--seed", "1") == {
        "fast": "",
        "steady": "",
        "cheap": "error_rate=0.01",
    }
    assert personas("--error-rate=0")["cheap"] == "latency_s=0.6,latency_p95_s=1.2"


def test_a_persona_of_the_users_replaces_ours() -> None:
    found = personas("--persona", "fast:latency_s=2")
    assert found["fast"] == "latency_s=2"
    assert "fast:" not in " ".join(simulator_argv(7001, ["--persona=fast:latency_s=2"])[:-1])
    assert set(found) == {"fast", "steady", "cheap"}


def test_urls() -> None:
    assert url_of("127.0.0.1", 8080) == "http://127.0.0.1:8080"
    assert url_of("::1", 8080) == "http://[::1]:8080"


def test_the_simulated_providers_are_valid_marked_and_priced(tmp_path: Path) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text(providers_text(7001))
    providers = load_catalogue(file).providers
    assert [provider.id for provider in providers] == ["sim-fast", "sim-steady", "sim-cheap"]
    assert all(
        provider.simulated and tariff_of(provider, "any") and provider.model_for("any")
        for provider in providers
    )
    assert providers[0].endpoint == "http://127.0.0.1:7001/p/fast/v1"


@pytest.mark.parametrize(
    ("size", "value"), [("2gb", 2**31), ("512M", 2**29), ("33554432", 2**25), (" 64 mb ", 2**26)]
)
def test_sizes(size: str, value: int) -> None:
    assert bytes_of(size) == value


@pytest.mark.parametrize("size", ["", "much", "1.5gb", "-1gb", "1kb"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(typer.BadParameter):
        bytes_of(size)
