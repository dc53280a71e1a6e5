"""Runs the API: one uvicorn process on loopback."""

import uvicorn

from api.app import make_app, make_parts
from shared.config import Settings
from shared.errors import ConfigError
from shared.logs import configure_logging
from shared.redis_access import check_access

GRACE_S = 20


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError for a bind beyond loopback, without providers, or where Redis lets us not in."""
    if not settings.loopback_only:
        raise ConfigError(
            [
                (
                    f"SERVER_HOST={settings.server_host}: without API keys the server listens on loopback only;"
                    " use SERVER_HOST=127.0.0.1"
                )
            ]
        )
    configure_logging(settings, part="api")
    check_access(settings, "api")
    uvicorn.run(
        make_app(make_parts(settings)),
        host=settings.server_host,
        port=settings.server_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
