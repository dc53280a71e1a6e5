"""`llm-edge demo` as `make run` calls it: the whole job, nothing left running, and no money spent unasked."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from support.edge import EDGE, edge, running_edge
from support.simulator import Simulator, running_simulator
from support.waiting import wait_for

NOT_OURS = {"REDIS_URL": "redis://127.0.0.1:1/0", "SERVER_PORT": "1", "LLM_EDGE_DIR": "/nowhere"}
"""What a user may have set for a fleet of theirs, which a demo must not touch."""


@pytest.fixture
def env() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_EDGE", "OPENAI"))}
    return {**kept, **NOT_OURS}


def stack_of(folder: Path) -> list[psutil.Process]:
    """The processes that work for the demo of this folder, known by what they are told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd(), process.environ().get("LLM_EDGE_CONFIG", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def _no_stack_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    yield
    for process in stack_of(tmp_path):
        with suppress(psutil.Error):
            process.kill()


@contextmanager
def real_provider(folder: Path) -> Iterator[Simulator]:
    """A configured provider that is not known to be simulated: what asks it spends money, as far as the demo knows."""
    with running_simulator() as simulator:
        provider = {
            "id": "costly",
            "endpoint": simulator.base_url,
            "cost_per_1k_tokens": 0.01,
            "models": {"*": "*", "named": "n"},
        }
        (folder / "providers.yaml").write_text(yaml.safe_dump({"providers": [provider]}))
        yield simulator


def test_a_thousand_jobs_simulated_even_where_providers_are_configured(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with real_provider(tmp_path) as provider:
        env["LLM_EDGE_CONFIG"] = str(tmp_path / "providers.yaml")
        ran = edge(tmp_path, "demo", env=env, timeout_s=120)
        assert ran.wait() == 0, ran.out + ran.err
        assert provider.calls() == []
    rows = [json.loads(row) for row in (tmp_path / "demo-output.jsonl").read_bytes().splitlines()]
    assert len({row["custom_id"] for row in rows}) == len(rows) == 1000
    assert {row["response"]["body"]["system_fingerprint"] for row in rows} == {"simulated"}
    assert {row["routing"]["provider"] for row in rows} == {"sim-fast", "sim-steady", "sim-cheap"}
    assert "SIMULATED" in ran.out
    assert "json.dump:" in ran.out
    for name in ("sim-fast", "sim-steady", "sim-cheap", "all"):
        assert f"│ {name} " in ran.out
    assert stack_of(tmp_path) == []


def test_ctrl_c_leaves_nothing_running(tmp_path: Path, env: dict[str, str]) -> None:
    with running_edge(tmp_path, "demo", "--jobs", "5000", "--dir", "d", env=env) as running:
        running.wait_said("in_progress")
        assert len(stack_of(tmp_path)) > 4
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
    assert "nothing is left running" in running.err
    assert "Traceback" not in running.err
    assert stack_of(tmp_path) == []


def test_not_even_kill_9_leaves_anything_running(tmp_path: Path, env: dict[str, str]) -> None:
    with running_edge(tmp_path, "demo", "--jobs", "5000", env=env) as running:
        running.wait_said("submitting")
        running.process.kill()
        running.wait()
        wait_for(lambda: not stack_of(tmp_path), 30, "the stack to end")
    ran = edge(tmp_path, "demo", "--jobs", "20", env=env)
    assert ran.wait() == 0, ran.out + ran.err
    assert "20 of 20 jobs done" in ran.out


def test_real_answers_need_a_yes(tmp_path: Path, env: dict[str, str]) -> None:
    with real_provider(tmp_path) as provider:
        unasked = edge(tmp_path, "demo", "--jobs", "5", "--real", env=env)
        assert unasked.wait() == 1
        assert f"REAL providers: 5 requests for named go to costly ({provider.base_url})" in unasked.out
        assert "cost: at most $0.0" in unasked.out
        assert "there is no terminal to ask on: nothing was sent" in unasked.err
        terminal, end = pty.openpty()
        os.write(terminal, b"n\n")
        refused = subprocess.run(
            [*EDGE, "demo", "--jobs", "5", "--real"],
            cwd=tmp_path,
            env=env,
            stdin=end,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(terminal)
        os.close(end)
        assert (refused.returncode, "Send them?" in refused.stdout + refused.stderr) == (1, True)
        assert provider.calls() == []
        agreed = edge(tmp_path, "demo", "--jobs", "5", "--real", "--yes", env=env)
        assert agreed.wait() == 0, agreed.out + agreed.err
        assert {call["model"] for call in provider.calls()} == {"n"}
        assert len(provider.calls()) == 5
    assert stack_of(tmp_path) == []


def test_openai_is_asked_with_the_key_of_the_environment(tmp_path: Path, env: dict[str, str]) -> None:
    with running_simulator() as openai:
        env |= {"OPENAI_API_KEY": "sk-made-up", "OPENAI_BASE_URL": openai.base_url}
        ran = edge(tmp_path, "demo", "--jobs", "5", "--real", "--yes", env=env)
        assert ran.wait() == 0, ran.out + ran.err
        assert "cost: unknown, because a provider has no price" in ran.out
        assert len(openai.calls()) == 5
        assert "sk-made-up" not in ran.out + ran.err
    for file in (tmp_path / ".llm-edge").rglob("*"):
        assert not file.is_file() or b"sk-made-up" not in file.read_bytes(), file


def test_without_a_provider_real_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    ran = edge(tmp_path, "demo", "--real", env=env)
    assert ran.wait() == 1
    assert "set OPENAI_API_KEY, or write ./providers.yaml" in ran.err


def test_anothers_data_are_not_wiped(tmp_path: Path, env: dict[str, str]) -> None:
    kept = tmp_path / "d" / "valkey" / "appendonly.aof"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    ran = edge(tmp_path, "demo", "--dir", "d", env=env)
    assert ran.wait() == 1
    assert "holds the data of another stack" in ran.err
    assert kept.read_text() == "precious"
