"""`llm-edge keys new`, and what `llm-edge config check` says of keys."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli.config import inspect
from api.cli.main import app
from api.keyring import Caller, parse_keyring


@pytest.mark.parametrize(("words", "admin"), [([], False), (["--admin"], True)])
def test_the_entry_lets_the_key_in(words: list[str], admin: bool) -> None:
    told = CliRunner().invoke(app, ["keys", "new", "alice", *words])
    assert told.exit_code == 0
    (_, key), (_, entry) = (line.split() for line in told.stdout.splitlines())
    assert parse_keyring([("", entry)]).caller_of(key) == Caller("alice", admin)
    assert key not in told.stderr
    assert "LLM_EDGE_API_KEYS" in told.stderr


def test_as_json() -> None:
    told = json.loads(CliRunner().invoke(app, ["keys", "new", "a", "--json"]).stdout)
    assert parse_keyring([("", told["entry"])]).caller_of(told["key"]) == Caller("a")


@pytest.mark.parametrize("owner", ["", "a b", "a:b", "a,b", "-" * 3, "x" * 41, "\u00e4"])
def test_a_name_that_would_not_do_is_refused(owner: str) -> None:
    told = CliRunner().invoke(app, ["keys", "new", "--", owner])
    assert told.exit_code == 2
    assert "an owner's name is" in told.stderr
    assert told.stdout == ""


def test_config_check_counts_keys_owners_and_admins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = [
        json.loads(CliRunner().invoke(app, ["keys", "new", "--json", *words]).stdout)["entry"]
        for words in (["alice"], ["alice"], ["ops", "--admin"])
    ]
    environ = {"LLM_EDGE_API_KEYS": ",".join(entries), "SERVER_HOST": "0.0.0.0"}  # noqa: S104  only looked at
    findings, notes = inspect(environ)
    assert findings.faults == []
    assert "keys: 3 keys of 2 owners, 1 of them for administration" in notes
    findings, notes = inspect({"SERVER_HOST": "0.0.0.0"})  # noqa: S104  only looked at
    assert [fault for fault in findings.faults if "needs API keys" in fault]
    findings, notes = inspect({"LLM_EDGE_API_KEYS": f"{entries[0]},bob", "SERVER_PORT": "x"})
    assert [fault.split(":")[1] for fault in findings.faults] == [" SERVER_PORT", " entry 2"]
    assert entries[0].split(":")[1] not in str(findings)
