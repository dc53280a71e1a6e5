"""Whether a job could run now, asked over HTTP as any client would."""

import http.client
import json

_TIMEOUT_S = 0.8


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def why_not_ready(host: str, port: int, key: str = "") -> str | None:
    """None once `GET /health/ready` answers 200 with a worker; else what is missing, in words."""
    connection = http.client.HTTPConnection(_here(host), port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready", headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return judge(response.status, response.read(65536))
    except (OSError, http.client.HTTPException):
        return "the API does not answer yet"
    finally:
        connection.close()


def _here(host: str) -> str:
    """Where this machine reaches what listens on `host`, which may stand for all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  they are compared with


def judge(status: int, body: bytes) -> str | None:
    """The same from the answer: its status and its body `{"status", "redis", "workers"}`."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return f"the API answers /health/ready with {status} and no JSON: is it another program's port?"
    if status != http.client.OK:
        return f"the API is not ready ({status}, redis: {told.get('redis')})"
    workers = told.get("workers")
    if not isinstance(workers, int):
        return "the API does not say how many workers there are"
    return None if workers else "no worker has reported yet"
