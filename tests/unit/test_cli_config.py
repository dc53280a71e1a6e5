"""`llm-edge init` and `llm-edge config check`, as a user types them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from api.cli import config, init, up
from api.up.known_providers import KNOWN
from api.up.redis_check import Findings
from shared.catalogue import load_catalogue
from shared.redis_url import RedisServer

PROVIDER = "providers: [{id: a, endpoint: 'http://127.0.0.1:1/v1', api_key_env: THE_KEY}]\n"


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = (
        "REDIS_URL",
        "BROKER_URL",
        "LLM_EDGE_CONFIG",
        "SERVER_PORT",
        "SERVER_HOST",
        "LLM_EDGE_API_KEYS",
        "LLM_EDGE_API_KEYS_FILE",
        "OPENAI_BASE_URL",
        "THE_KEY",
    )
    for name in (*settings, *(known.key_variable for known in KNOWN)):
        monkeypatch.delenv(name, raising=False)


def edge(*words: str, env: Mapping[str, str] | None = None) -> Result:
    app = typer.Typer()
    app.command("up")(up.up)
    app.command("init")(init.init)
    app.add_typer(config.app, name="config")
    return CliRunner().invoke(app, list(words), env=env or {})


def test_init_without_any_key_writes_nothing_and_says_so(tmp_path: Path) -> None:
    result = edge("init", env={"OPENAI_API_KEY": " "})
    assert result.exit_code == 1
    assert "nothing was written" in result.output
    assert "OPENAI_API_KEY" in result.output
    assert list(tmp_path.iterdir()) == []


def test_init_writes_what_the_catalogue_takes_and_never_a_key(tmp_path: Path) -> None:
    result = edge("init", env={"OPENAI_API_KEY": "sk-very-secret"})
    assert result.exit_code == 0, result.output
    file = tmp_path / "providers.yaml"
    assert "sk-very-secret" not in file.read_text() + result.output
    (provider,) = load_catalogue(file).providers
    assert (provider.id, provider.endpoint) == ("openai", "https://api.openai.com/v1")
    assert provider.api_key_env == "OPENAI_API_KEY"
    assert provider.models == {"*": "*"}
    assert "llm-edge config check" in result.output
    assert edge("config", "check", env={"OPENAI_API_KEY": "sk-very-secret"}).exit_code == 0


def test_init_with_every_key_writes_them_all_in_order_of_failover(tmp_path: Path) -> None:
    result = edge("init", env={known.key_variable: "k" for known in KNOWN})
    assert result.exit_code == 0, result.output
    catalogue = load_catalogue(tmp_path / "providers.yaml")
    assert [p.id for p in catalogue.providers] == [known.id for known in KNOWN]
    assert [p.priority for p in catalogue.providers] == list(range(1, len(KNOWN) + 1))
    assert catalogue.routing.strategy == "failover"


def test_init_heeds_openais_own_base_url(tmp_path: Path) -> None:
    result = edge("init", env={"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"})
    assert result.exit_code == 0, result.output
    assert load_catalogue(tmp_path / "providers.yaml").providers[0].endpoint == "http://127.0.0.1:8000/v1"


def test_init_refuses_an_address_with_credentials_and_writes_nothing(tmp_path: Path) -> None:
    result = edge("init", env={"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://me:hush@127.0.0.1/v1"})
    assert result.exit_code == 1
    assert "credentials" in result.output
    assert "hush" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_init_overwrites_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("mine")
    result = edge("init", env={"OPENAI_API_KEY": "k"})
    assert result.exit_code == 1
    assert "--force" in result.output
    assert (tmp_path / "providers.yaml").read_text() == "mine"
    assert edge("init", "--force", env={"OPENAI_API_KEY": "k"}).exit_code == 0
    assert load_catalogue(tmp_path / "providers.yaml")


@pytest.mark.parametrize("name", ["providers.yml", "providers.toml"])
def test_init_never_hides_a_file_of_another_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    result = edge("init", "--force", env={"OPENAI_API_KEY": "k"})
    assert result.exit_code == 1
    assert name in result.output
    assert not (tmp_path / "providers.yaml").exists()


def test_init_says_when_another_file_is_in_force() -> None:
    result = edge("init", env={"OPENAI_API_KEY": "k", "LLM_EDGE_CONFIG": "/elsewhere.yaml"})
    assert result.exit_code == 0
    assert "LLM_EDGE_CONFIG=/elsewhere.yaml is set" in result.output


def test_check_of_nothing_at_all_is_in_order() -> None:
    result = edge("config", "check")
    assert result.exit_code == 0
    assert "will simulate" in result.output
    assert "REDIS_URL is not set" in result.output


def test_check_names_every_fault_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "providers:\n  - {id: a, endpoint: 'ftp://x', priority: first}\n  - {id: b c, endpoint: 'http://x'}\n"
    )
    env = {
        "SERVER_PORT": "many",
        "LLM_EDGE_LEASE_S": "0",
        "LLM_EDGE_CONFIG": "p.yaml",
        "REDIS_URL": "redis://:hush@127.0.0.1:1/0",
    }
    result = edge("config", "check", env=env)
    assert result.exit_code == 1
    for words in (
        "SERVER_PORT",
        "LLM_EDGE_LEASE_S",
        "endpoint",
        "priority",
        "providers.1.id",
        "cannot be reached",
    ):
        assert words in result.output
    assert "faults found" in result.output
    assert "hush" not in result.output


def test_check_names_a_key_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text(
        f"{PROVIDER}\nowners:\n  alice: {{max_cost: 5}}\n  alice: {{max_cost: 500}}\n"
    )
    result = edge("config", "check")
    assert result.exit_code == 1
    assert "'alice' stands here again" in result.output


def test_check_reads_every_key(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "providers.yaml").write_text(
        "providers:\n"
        "  - {id: a, endpoint: 'http://x/v1', api_key_env: THE_KEY}\n"
        "  - {id: b, endpoint: 'http://x/v1', api_key_file: absent}\n"
        "  - {id: c, endpoint: 'http://x/v1', api_key_file: empty}\n"
        "  - {id: d, endpoint: 'http://x/v1', api_key_env: UNSET_KEY, enabled: false}\n"
        "  - {id: e, endpoint: 'http://x/v1'}\n"
    )
    result = edge("config", "check")
    assert result.exit_code == 1
    faults = [line for line in result.output.splitlines() if line.startswith("fault: ")]
    assert [line.split()[2] for line in faults] == ["a:", "b:", "c:"]
    assert "warning: provider d:" in result.output


def test_check_passes_with_the_key_there_and_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text(PROVIDER)
    result = edge("config", "check", env={"THE_KEY": "sk-very-secret"})
    assert result.exit_code == 0, result.output
    assert "sk-very-secret" not in result.output


def test_check_minds_a_fleet_with_no_provider_switched_on(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("providers: [{id: a, endpoint: 'http://x/v1', enabled: false}]")
    result = edge("config", "check")
    assert result.exit_code == 1
    assert "switched off" in result.output


def test_a_missing_file_named_by_the_environment_is_a_fault() -> None:
    result = edge("config", "check", env={"LLM_EDGE_CONFIG": "absent.yaml"})
    assert result.exit_code == 1
    assert "absent.yaml: No such file" in result.output


def test_servers_are_asked_once_each_and_warnings_are_no_faults() -> None:
    asked: list[str] = []

    def ask(server: RedisServer) -> Findings:
        asked.append(server.shown)
        return Findings([], ["no maxmemory"])

    same = {"REDIS_URL": "redis://r/0", "BROKER_URL": "redis://r/0"}
    findings, _ = config.inspect(same, ask)
    assert asked == ["redis://r:6379/0"]
    assert findings == Findings([], ["REDIS_URL: no maxmemory"])
    config.inspect({"REDIS_URL": "redis://r/0", "BROKER_URL": "redis://b/0"}, ask)
    config.inspect({"REDIS_URL": "redis://r/0", "BROKER_URL": "amqp://b"}, ask)
    assert asked[1:] == ["redis://r:6379/0", "redis://b:6379/0", "redis://r:6379/0"]


@pytest.mark.parametrize(
    ("connected", "words"), [(1, []), (0, ["LLM_EDGE_WAIT_REPLICAS=1: 0 replicas"]), (None, [])]
)
def test_fewer_replicas_than_submits_wait_for_are_warned_of(connected: int | None, words: list[str]) -> None:
    env = {"REDIS_URL": "redis://h:6379/0", "LLM_EDGE_WAIT_REPLICAS": "1"}
    findings, _ = config.inspect(env, lambda _: Findings(replicas=connected))
    assert [line[: len(word)] for line, word in zip(findings.warnings, words, strict=True)] == words


def test_up_refuses_other_than_loopback() -> None:
    result = edge("up", "--host", "0.0.0.0")  # noqa: S104  that is what is refused
    assert result.exit_code == 1
    assert "this machine only" in result.output


def test_up_refuses_to_simulate_beside_configured_providers(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text(PROVIDER)
    result = edge("up", "--port", "0", "--simulate", "--seed 1")
    assert result.exit_code == 1
    assert "the simulator never joins them" in result.output


def test_up_without_simulator_and_providers_says_what_to_do(tmp_path: Path) -> None:
    result = edge("up", "--port", "0", "--no-simulator")
    assert result.exit_code == 1
    assert "llm-edge init" in result.output
    assert list(tmp_path.iterdir()) == []


def test_up_names_the_faults_of_a_providers_file_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("providers: []")
    result = edge("up", "--port", "0")
    assert result.exit_code == 1
    assert "providers" in result.output
    assert not (tmp_path / ".llm-edge").exists()
