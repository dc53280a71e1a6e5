import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.logs import parse_levels, shortener

PROGRAM = """
import logging
from shared.config import load_settings
from shared.logs import configure_logging, get_logger
import structlog
configure_logging(load_settings(), part="test")
log = get_logger("workers.x")
log.debug("quiet")
with structlog.contextvars.bound_contextvars(request_id="req_1"):
    log.info("spoke", api_key="abc", mail="jane@mail.example", n=3, nested={"password": "p", "t": [1, "sk-abcdefgh12345"]}, long="y" * 5000)
try:
    raise ValueError("with sk-abcdefgh12345 in it")
except ValueError:
    log.exception("broke")
logging.getLogger("other").warning("foreign %s", "jane@mail.example")
logging.getLogger("other").info("foreign info")
"""


def run(**env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def test_json_lines_redacted_correlated_and_bounded() -> None:
    lines = [json.loads(line) for line in run(LOG_MAX_CHARS="100").splitlines()]
    assert [line["event"] for line in lines] == ["spoke", "broke", "foreign [EMAIL_REDACTED]", "foreign info"]
    spoke, broke = lines[0], lines[1]
    assert (spoke["request_id"], spoke["part"], spoke["logger"], spoke["level"], spoke["n"]) == (
        "req_1",
        "test",
        "workers.x",
        "info",
        3,
    )
    assert spoke["timestamp"].endswith("Z")
    assert spoke["api_key"] == "[API_KEY_REDACTED]"
    assert spoke["nested"] == {"password": "[API_KEY_REDACTED]", "t": [1, "[API_KEY_REDACTED]"]}
    assert spoke["long"] == "y" * 50 + "... [4900 characters left out] ..." + "y" * 50
    assert broke["exception"].startswith("Traceback")
    assert broke["exception"].endswith("ValueError: with [API_KEY_REDACTED] in it"), "the error is at the end"
    assert "abcdefgh" not in json.dumps(lines)


def test_levels_by_module() -> None:
    events = [json.loads(line)["event"] for line in run(LOG_LEVEL="warning,workers=debug").splitlines()]
    assert events == ["quiet", "spoke", "broke", "foreign [EMAIL_REDACTED]"]


def test_console_and_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert run(LOG_FORMAT="console", LOG_FILE=str(path)) == ""
    text = path.read_text()
    assert "spoke" in text
    assert "jane@" not in text


def test_parse_levels() -> None:
    assert parse_levels("info,workers=debug, celery = error") == {
        "": logging.INFO,
        "workers": logging.DEBUG,
        "celery": logging.ERROR,
    }
    with pytest.raises(ConfigError) as caught:
        parse_levels("loud,workers=silent")
    assert len(caught.value.faults) == 2


def test_shortener() -> None:
    assert shortener(4)("abcdefg") == "ab... [3 characters left out] ...fg"
    assert shortener(3)("abcdefg") == "ab... [4 characters left out] ...g"
    assert shortener(3)("abc") == "abc"
