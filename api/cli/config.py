"""`llm-edge config check`: every fault of environment and providers file at once."""

import os
from collections.abc import Callable, Mapping

import typer

from api.cli.acl import acl
from api.keyring import load_keyring
from api.up.redis_check import Findings, examine
from shared.catalogue import Catalogue, find_file, load_catalogue
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.redis_settings import RedisSettings
from shared.redis_url import RedisServer

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Look at the configuration."""


app.command("acl")(acl)


@app.command("check")
def check() -> None:
    """Check environment, providers file, API keys and, with REDIS_URL set, the server. Exit code 1 if anything is wrong."""
    findings, notes = inspect(os.environ)
    for line in notes:
        print(line)
    for line in findings.warnings:
        print(f"warning: {line}")
    for line in findings.faults:
        print(f"fault: {line}")
    if findings.faults:
        count = len(findings.faults)
        print(f"{count} fault{'s' if count != 1 else ''} found", flush=True)
        raise typer.Exit(1)
    print("the configuration is in order", flush=True)


def inspect(
    environ: Mapping[str, str], ask: Callable[[RedisServer], Findings] = examine
) -> tuple[Findings, list[str]]:
    """All findings, and notes on what was looked at. `ask` looks at a Redis server."""
    findings = Findings()
    notes: list[str] = []
    settings = _settings(environ, findings)
    _check_callers(settings, findings, notes)
    file = find_file(settings)
    if file is None:
        notes.append(
            "providers: none configured; `llm-edge up` will simulate some, `llm-edge init` writes providers.yaml"
        )
    else:
        try:
            catalogue = load_catalogue(file)
        except ConfigError as exc:
            findings.faults.extend(exc.faults)
        else:
            notes.append(f"providers: {len(catalogue.providers)} in {file}")
            _check_keys(catalogue, environ, findings)
    for name, server in _servers(environ):
        asked = ask(server)
        findings.faults.extend(f"{name}: {line}" for line in asked.faults)
        findings.warnings.extend(f"{name}: {line}" for line in asked.warnings)
        if name == "REDIS_URL" and asked.replicas is not None and asked.replicas < settings.wait_replicas:
            findings.warnings.append(
                f"LLM_EDGE_WAIT_REPLICAS={settings.wait_replicas}: {asked.replicas} replicas are connected, so"
                " every submit will be answered 503"
            )
    if not environ.get("REDIS_URL"):
        notes.append("server: REDIS_URL is not set; `llm-edge up` will run an embedded one")
    return findings, notes


_STILL_LOOKED_AT = {"LLM_EDGE_CONFIG", "LLM_EDGE_API_KEYS", "LLM_EDGE_API_KEYS_FILE"}


def _settings(environ: Mapping[str, str], findings: Findings) -> Settings:
    """The settings; where some are faulty, at least those that name other files, so that they are checked too."""
    try:
        return load_settings(environ)
    except ConfigError as exc:
        findings.faults.extend(exc.faults)
        return load_settings({k: v for k, v in environ.items() if k in _STILL_LOOKED_AT})


def _check_callers(settings: Settings, findings: Findings, notes: list[str]) -> None:
    try:
        keyring = load_keyring(settings)
    except ConfigError as exc:
        findings.faults.extend(exc.faults)
        return
    if keyring:
        notes.append(f"keys: {keyring}")
        return
    notes.append("keys: none; whoever is on this machine may use the API, and it listens on loopback only")
    if not settings.loopback_only:
        findings.faults.append(
            f"SERVER_HOST={settings.server_host}: needs API keys; `llm-edge keys new OWNER` makes one"
        )


def _servers(environ: Mapping[str, str]) -> list[tuple[str, RedisServer]]:
    """The user's own servers by the variable that names them, whatever else may be wrong; none where these are."""
    known = {field.alias for field in RedisSettings.model_fields.values()}
    try:
        settings = load_settings({k: v for k, v in environ.items() if k in known})
    except ConfigError:
        return []
    servers = [("REDIS_URL", settings.redis)] if environ.get("REDIS_URL") else []
    if environ.get("BROKER_URL") and settings.broker is not None and settings.broker != settings.redis:
        servers.append(("BROKER_URL", settings.broker))
    return servers


def _check_keys(catalogue: Catalogue, environ: Mapping[str, str], findings: Findings) -> None:
    """A key that cannot be read is a fault; of a provider that is switched off, a warning."""
    for provider in catalogue.providers:
        try:
            missing = (provider.api_key_env or provider.api_key_file) and not provider.api_key(environ)
            problems = (
                [f"provider {provider.id}: api_key_file: {provider.api_key_file} is empty"] if missing else []
            )
        except ConfigError as exc:
            problems = exc.faults
        except UnicodeDecodeError:
            problems = [f"provider {provider.id}: api_key_file: {provider.api_key_file} is not text"]
        (findings.faults if provider.enabled else findings.warnings).extend(problems)
    if not any(provider.enabled for provider in catalogue.providers):
        findings.faults.append("providers: every one of them is switched off (enabled: false)")
