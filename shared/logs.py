"""Logs: one structlog chain for our own entries and everybody else's, with the redactor always in it."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.config import Settings
from shared.errors import ConfigError
from shared.redact import KEY as _KEY
from shared.redact import is_secret_name, redact_value

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_UNHARMED = frozenset({"timestamp", "level", "logger", "part", "pid"})
_encode = msgspec.json.Encoder(enc_hook=str).encode


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; cheap to call at import, configured when it first speaks."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def parse_levels(text: str) -> dict[str, int]:
    """`info,workers=debug` as levels by module, `""` being everybody else. Raises ConfigError with every fault."""
    levels, faults = {"": logging.INFO}, []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        module, _, name = part.rpartition("=")
        level = _LEVELS.get(name.strip().lower())
        if level is not None and (module or "=" not in part):
            levels[module.strip()] = level
        else:
            faults.append(
                f"environment: LOG_LEVEL: '{part}' is not a level or module=level; levels are {', '.join(_LEVELS)}"
            )
    if faults:
        raise ConfigError(faults)
    return levels


def configure_logging(settings: Settings, *, part: str) -> None:
    """Set up this process' logs, once. `part` says which part of the system speaks. Raises ConfigError."""
    levels = parse_levels(settings.log_level)
    shared = _chain(settings, part)
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=False) if settings.log_format == "console" else _json
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = _handler(settings.log_file)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for module, level in levels.items():
        logging.getLogger(module or None).setLevel(level)
    for loud in (
        "celery.worker.strategy",
        "celery.app.trace",
        "kombu",
        "urllib3",
        "httpx",
    ):  # a line per task and call
        if loud not in levels:
            logging.getLogger(loud).setLevel(max(levels[""], logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _chain(settings: Settings, part: str) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _origin(part, settings.environment),
        _redactor(shortener(settings.log_max_chars), ip=settings.log_redact_ip),
    ]


def _handler(path: Path | None) -> logging.Handler:
    if path is None:
        return logging.StreamHandler(sys.stdout)
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise ConfigError([f"environment: LOG_FILE: {exc.strerror}: {path}"]) from exc


def _origin(part: str, environment: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["part"], event["pid"], event["environment"] = part, os.getpid(), environment
        return event

    return add


def shortener(most: int) -> Callable[[str], str]:
    """Cuts what is more than `most` characters out of a string's middle and says how many: a traceback tells its error at the end."""
    last = most // 2
    first = most - last

    def shorten(text: str) -> str:
        if len(text) <= most:
            return text
        return f"{text[:first]}... [{len(text) - most} characters left out] ...{text[len(text) - last :]}"

    return shorten


def _redactor(shorten: Callable[[str], str], *, ip: bool) -> Processor:
    def clean(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for name, value in event.items():
            if name.startswith("_") or name in _UNHARMED:
                continue
            secret = value is not None and is_secret_name(name)
            event[name] = _KEY if secret else redact_value(value, ip=ip, shorten=shorten)
        return event

    return clean


def _json(_: WrappedLogger, __: str, event: EventDict) -> str:
    ordered: dict[str, Any] = {
        name: event.pop(name) for name in ("timestamp", "level", "event") if name in event
    }
    return _encode({**ordered, **event}).decode()
