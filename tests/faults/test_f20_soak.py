"""F20, the short form of `make soak`: the same mix of load and disturbances, without slopes, and the same verdict."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
SEED = 20


@pytest.mark.parametrize("pool", ["gevent", "threads"])
def test_nothing_is_lost_or_doubled_and_nothing_stays_that_should_not(pool: str) -> None:
    argv = [sys.executable, "-m", "tests.soak", "--duration", "60s", "--seed", str(SEED), "--pool", pool]
    found = subprocess.run(
        argv, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=480, check=False
    )
    sys.stdout.write(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "lost 0, doubled 0" in found.stdout
    assert "FAULT" not in found.stdout
