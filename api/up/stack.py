"""`llm-edge up`, step by step: folder, server, providers, parts; then the supervisor until the end."""

import hashlib
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from api.keyring import Keyring, load_keyring, new_key
from api.up.errors import UpError
from api.up.folder import Folder, write_private
from api.up.guard import Guard
from api.up.known_providers import found_in
from api.up.parts import Part
from api.up.plan import Embedded, Simulated, Stack, parts_of
from api.up.ready import url_of, why_not_ready
from api.up.redis_check import examine
from api.up.simulated import providers_text
from api.up.supervisor import Hooks, Supervisor
from api.up.valkey import Instance, config_text, find_server, free_port, half_of_memory, port_is_free
from shared.catalogue import find_file, load_catalogue
from shared.config import LOOPBACK, Settings, load_settings
from shared.errors import ConfigError, EdgeError
from shared.redis_client import connect
from shared.redis_ledger import RedisLedger
from shared.redis_url import parse_redis_url

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the user asked `up` for."""

    folder: Path
    host: str
    port: int
    workers: int
    grace_s: float = 30.0
    concurrency: int | None = None
    pool: str = "gevent"
    log_level: str | None = None
    maxmemory: int | None = None
    """Bytes for the embedded server; None: half of the machine's."""
    simulate: str = ""
    """Options for the simulator, as one would type them."""
    simulator: bool = True
    """Whether to simulate providers where none is configured."""


def bring_up(
    options: Options,
    settings: Settings,
    environ: Mapping[str, str],
    say: Say,
    make_parts: Callable[[Stack], list[Part]] = parts_of,
) -> None:
    """Run the stack until SIGINT or SIGTERM; nothing is left behind. Raises UpError or ConfigError.

    `make_parts` is a seam for tests of the supervision, which need no real API.
    """
    keyring = load_keyring(settings)
    _check_address(options, keyring)
    providers = _configured(options, settings, environ, say)
    folder = Folder(options.folder)
    folder.prepare()
    lock = folder.lock(say)
    try:
        if count := folder.end_leftovers():
            say(f"ended {count} processes that an earlier run had left behind")
        stack = _stack(options, environ, folder, say, simulated=providers is None)
        stack = replace(stack, api_grace_s=settings.api_grace_s)
        if keyring:
            say(f"keys: {keyring}")
            stack = replace(stack, own_key=new_key())
        _run(stack, make_parts(stack), folder, lock, say)
    finally:
        os.close(lock)


def _check_address(options: Options, keyring: Keyring) -> None:
    if options.host not in LOOPBACK and not keyring:
        raise UpError(
            f"--host {options.host}: without API keys `llm-edge up` listens on this machine only (127.0.0.1), "
            "because anyone who reaches it could spend your providers' money. "
            "`llm-edge keys new OWNER` makes a key for LLM_EDGE_API_KEYS."
        )
    if options.port and not port_is_free(_numeric(options.host), options.port):
        raise UpError(
            f"port {options.port} on {options.host} is in use by another program. "
            "Stop that one, or choose another port: `llm-edge up --port 8081` (0 picks a free one)."
        )


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _configured(options: Options, settings: Settings, environ: Mapping[str, str], say: Say) -> Path | None:
    """The user's providers file, checked; None where providers are to be simulated."""
    file = find_file(settings)
    if file is None:
        if not options.simulator:
            raise UpError(
                "no provider is configured and --no-simulator was given. Set a provider's key, for example "
                "OPENAI_API_KEY, and run `llm-edge init`; or write providers.yaml."
            )
        return None
    catalogue = load_catalogue(file)
    if options.simulate:
        raise UpError(
            f"--simulate has no use here: {file} configures providers, and the simulator never joins them."
        )
    say(
        f"providers: {', '.join(provider.id for provider in catalogue.providers if provider.enabled)} ({file})"
    )
    for provider in catalogue.providers:
        try:
            provider.api_key(environ) if provider.enabled else None
        except ConfigError as exc:
            say(f"warning: {exc.message}; it will refuse every call")
    return file


def _stack(
    options: Options, environ: Mapping[str, str], folder: Folder, say: Say, *, simulated: bool
) -> Stack:
    own_redis = environ.get("REDIS_URL", "")
    names = socket.gethostname()
    if own_redis:  # other stacks may share it: their workers need other names
        names += "-" + hashlib.sha256(str(folder.path).encode()).hexdigest()[:6]
    return Stack(
        host=options.host,
        port=options.port or free_port(),
        workers=options.workers,
        worker_names=names,
        environ=environ,
        grace_s=options.grace_s,
        concurrency=options.concurrency,
        pool=options.pool,
        log_level=options.log_level,
        embedded=None if own_redis and _fit(environ, say) else _embedded(options, folder, say),
        simulated=_simulated(options, environ, folder, say) if simulated else None,
    )


def _fit(environ: Mapping[str, str], say: Say) -> bool:
    """True; raises UpError where the server of the user's own cannot serve."""
    server = load_settings(environ).redis
    findings = examine(server)
    if findings.faults:
        raise UpError("REDIS_URL: " + "\nREDIS_URL: ".join(findings.faults))
    for warning in findings.warnings:
        say(f"warning: REDIS_URL: {warning}")
    say(f"server: {server.shown} (REDIS_URL)")
    return True


def _embedded(options: Options, folder: Folder, say: Say) -> Embedded:
    server = find_server()
    maxmemory = half_of_memory() if options.maxmemory is None else options.maxmemory
    instance = Instance(folder.data, free_port(), folder.password(), maxmemory)
    write_private(folder.server_config, config_text(instance))
    say(
        f"server: embedded {server.version}, data in {folder.path}, at most {maxmemory / 2**30:.1f} GiB of memory"
    )
    return Embedded(server, instance, folder.server_config)


def _simulated(options: Options, environ: Mapping[str, str], folder: Folder, say: Say) -> Simulated:
    try:
        words = tuple(shlex.split(options.simulate))
    except ValueError as exc:
        raise UpError(f"--simulate {options.simulate}: {exc}") from exc
    port = free_port()
    write_private(folder.providers, providers_text(port))
    say(
        "providers: SIMULATED, because none is configured. Every answer is made up; nothing is sent anywhere."
    )
    keys = [known.key_variable for known in found_in(environ)]
    if keys:
        say(f"  {', '.join(keys)} found, but not used until `llm-edge init` has written providers.yaml.")
    else:
        say("  For real answers set a provider's key, for example OPENAI_API_KEY, and run `llm-edge init`.")
    return Simulated(port, folder.providers, words)


def _run(stack: Stack, parts: list[Part], folder: Folder, lock: int, say: Say) -> None:
    say(
        f"starting the API and {stack.workers} worker{'s' if stack.workers != 1 else ''}; logs in {folder.logs}"
    )
    hooks = Hooks(
        why_not_ready=lambda: why_not_ready(stack.host, stack.port, stack.own_key),
        on_server=lambda: forget_workers(stack),
        on_ready=lambda: say(f"ready {url_of(stack.host, stack.port)}"),
        say=say,
    )
    Supervisor(parts, folder, Guard(folder.lock_file, folder.record, lock_fd=lock), hooks).run()
    say("stopped")


def forget_workers(stack: Stack) -> None:
    """The embedded server may remember workers that were killed with it: none lives yet, so nobody should count on them."""
    if stack.embedded is None:
        return
    client = connect(parse_redis_url(stack.embedded.instance.url), role="worker", max_connections=1)
    try:
        ledger = RedisLedger(client, load_settings(stack.environ).key_prefix)
        for worker in ledger.workers():
            ledger.retire(worker.id)
    except EdgeError:
        pass  # they are forgotten by themselves within seconds
    finally:
        client.close()
        client.connection_pool.disconnect()
