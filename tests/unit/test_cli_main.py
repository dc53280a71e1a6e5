"""The list of commands: complete, quick, and each of them really there."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from api.cli.main import app

HEAVY = ("celery", "fastapi", "gevent", "pydantic", "redis", "requests", "yaml")
COMMANDS = ("up", "demo", "batch", "init", "keys", "config", "api", "worker", "simulate")


def test_help_knows_every_command_and_imports_nothing_heavy() -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from api.cli.main import app
print(CliRunner().invoke(app, ["--help"]).output)
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert "heavy: []" in told.stdout
    for name in COMMANDS:
        assert f"\N{BOX DRAWINGS LIGHT VERTICAL} {name} " in told.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "simulate"])
def test_every_command_has_its_own_help(name: str) -> None:
    told = CliRunner().invoke(app, [name, "--help"])
    assert told.exit_code == 0
    assert f" {name} [OPTIONS]" in told.stdout


@pytest.mark.parametrize("words", [["batch", "run"], ["batch", "results"], ["batch", "status"], ["demo"]])
def test_help_tells_the_exit_codes(words: list[str]) -> None:
    told = " ".join(
        CliRunner()
        .invoke(app, [*words, "--help"])
        .stdout.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ")
        .split()
    )
    assert "xit codes: 0 " in told
    assert "3 the batch failed validation" in told


def test_a_typo_is_answered_with_the_command_that_was_meant() -> None:
    told = CliRunner().invoke(app, ["bacth", "run"])
    assert told.exit_code == 2
    assert "Did you mean 'batch'?" in told.output


def test_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout.split()[0]) == (0, "llm-edge")


def test_a_pool_that_cannot_work_is_refused_with_the_right_command() -> None:
    told = CliRunner().invoke(app, ["worker", "--pool", "prefork"])
    assert told.exit_code == 2
    assert "llm-edge worker --pool gevent" in told.stderr


@pytest.mark.parametrize("command", ["api", "worker"])
def test_faulty_settings_are_named(command: str) -> None:
    told = CliRunner().invoke(app, [command], env={"LLM_EDGE_LEASE_S": "soon"})
    assert told.exit_code == 1
    assert f"llm-edge {command}: environment: LLM_EDGE_LEASE_S" in told.stderr
