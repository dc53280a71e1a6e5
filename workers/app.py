"""`celery -A workers.app worker -P gevent`: the Celery application of the fleet. Nothing is read before a worker starts."""

import sys
from typing import Any, NoReturn

from celery import Celery, signals

from shared.broker import celery_settings
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.logs import configure_logging, get_logger
from shared.redis_access import check_access
from shared.worker_command import check_pool
from workers.bootsteps import BufferedEvents, SweepUnacked
from workers.broker_connection import Amqp, let_others_run
from workers.hint_qos import install as install_hint_qos
from workers.runtime import Runtime
from workers.tasks import register

_log = get_logger(__name__)


class _Process:
    """What this process has made so far; the app itself must exist at import for Celery to find it."""

    settings: Settings | None = None
    pool: str = ""
    runtime: Runtime | None = None


def _settings() -> Settings:
    if _Process.settings is None:
        _Process.settings = load_settings()
    return _Process.settings


def _defaults() -> dict[str, Any]:
    return celery_settings(_settings(), "worker")


def _runtime() -> Runtime:
    if _Process.runtime is None:
        raise RuntimeError("the worker has not started")
    return _Process.runtime


def _pool_of(worker: Any) -> str:
    """Celery's own name for the worker's pool, from its module: gevent, threads, prefork ..."""
    module = str(worker.pool_cls.__module__).rpartition(".")[2]
    return {"thread": "threads"}.get(module, module)


def _check(sender: Any, **_: Any) -> None:
    """Before anything is forked or connected."""
    try:
        _settings()
        install_hint_qos()
        _Process.pool = check_pool(_pool_of(sender))
        if _Process.pool == "gevent":
            _assert_patched()
            let_others_run()
        # as under gevent: in Celery's own event loop the ack of a task that ends while the broker is away ends the worker
        sender.use_eventloop = False
        check_access(_settings(), "worker")
    except ConfigError as exc:
        _give_up(exc)


def _start(**_: Any) -> None:
    if _Process.runtime is not None:  # Celery says "ready" after every reconnection
        return
    try:
        runtime = Runtime(_settings(), app, _Process.pool)
        runtime.start()
    except ConfigError as exc:
        _give_up(exc)
    _Process.runtime = runtime


def _give_up(exc: ConfigError) -> NoReturn:
    sys.stderr.write(f"llm-edge worker cannot start:\n{exc}\n")
    raise SystemExit(1) from exc


def _assert_patched() -> None:
    from gevent import monkey  # noqa: PLC0415  only where gevent is the pool

    if not monkey.is_module_patched("socket"):
        raise ConfigError(
            ["the gevent pool needs patching first: start through `llm-edge worker` or the `celery` command"]
        )


def _stopping(**_: Any) -> None:
    if _Process.runtime is not None:
        _Process.runtime.begin_stop()


def _stop(**_: Any) -> None:
    if _Process.runtime is not None:
        _Process.runtime.stop()


def _logging(**_: Any) -> None:
    try:
        configure_logging(_settings(), part="worker")
    except ConfigError as exc:
        _give_up(exc)


app = Celery("llm_edge", amqp=Amqp)
app.add_defaults(_defaults)
app.steps["consumer"].update({SweepUnacked, BufferedEvents})
register(app, _runtime)
signals.setup_logging.connect(_logging, weak=False)
signals.worker_init.connect(_check, weak=False)
signals.worker_ready.connect(_start, weak=False)
signals.worker_shutting_down.connect(_stopping, weak=False)
signals.worker_shutdown.connect(_stop, weak=False)
