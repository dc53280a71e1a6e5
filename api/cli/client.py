"""The HTTP client of the command line: OpenAI's Files and Batches over `requests`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from api.cli.multipart import Multipart
from api.cli.outcome import AwayError, RefusedError, UsageError
from api.cli.words import duration, printable
from shared.config import LOOPBACK

DEFAULT_URL = "http://127.0.0.1:8080"
PATIENCE_S = 30.0
"""How long one request is repeated for a server that says when to come again."""

_TIMEOUT_S = (5.0, 30.0)
_UPLOAD_TIMEOUT_S = (30.0, 300.0)
"""Connecting, and silence. While a body is sent, the first of the two bounds each write."""
_PIECE_BYTES = 256 * 1024
_MOST_RETRY_AFTER_S = 300.0


class Client:
    """One server. Every method raises RefusedError for a refusal and AwayError where the server does not serve now."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`say` hears why a request is repeated. Raises UsageError for a URL or a key that is none."""
        self.url = base_of(url)
        self._say = say
        self._patience_s = patience_s
        self._session = requests.Session()
        self._session.auth = _Bearer(api_key)
        if urlsplit(self.url).hostname in LOOPBACK:
            self._session.trust_env = False  # no proxy leads to this machine's own loopback

    def close(self) -> None:
        self._session.close()

    def upload(
        self,
        path: Path,
        on_sent: Callable[[int], None] = lambda _: None,
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Send a batch's input file from disk; the file object. Raises UsageError or FileError for a file that cannot be."""
        form = Multipart(path, {"purpose": "batch"}, on_sent)
        headers = {"Content-Type": form.content_type, **_once(idempotency_key)}
        return self._json("POST", "/files", data=form, headers=headers, timeout=_UPLOAD_TIMEOUT_S)

    def delete_file(self, file_id: str) -> None:
        self._json("DELETE", f"/files/{quote(file_id, safe='')}")

    def create_batch(
        self,
        input_file_id: str,
        endpoint: str,
        window: str,
        metadata: Mapping[str, str] | None = None,
        *,
        max_cost: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": window,
        }
        if metadata:
            body["metadata"] = dict(metadata)
        if max_cost is not None:
            body["max_cost"] = max_cost
        return self._json("POST", "/batches", json=body, headers=_once(idempotency_key))

    def batch(self, batch_id: str, *, patient: bool = True) -> dict[str, Any]:
        """One batch object. Without `patient` a server that is away is reported at once."""
        return self._json("GET", f"/batches/{quote(batch_id, safe='')}", patient=patient)

    def cancel(self, batch_id: str) -> dict[str, Any]:
        return self._json("POST", f"/batches/{quote(batch_id, safe='')}/cancel")

    def explain(self, batch_id: str, line: int | None = None) -> dict[str, Any]:
        query = "" if line is None else f"?line={line}"
        return self._json("GET", f"/batches/{quote(batch_id, safe='')}/explain{query}")

    def providers(
        self, *, patient: bool = True, timeout_s: tuple[float, float] = _TIMEOUT_S
    ) -> dict[str, Any]:
        return self._json("GET", "/providers", patient=patient, timeout=timeout_s)

    def workers(self) -> dict[str, Any]:
        return self._json("GET", "/workers")

    def change_provider(self, provider_id: str, action: str) -> dict[str, Any]:
        """`action` is enable, disable or drain."""
        return self._json("POST", f"/providers/{quote(provider_id, safe='')}/{action}")

    def batches(self, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        """One page of the list, newest first."""
        return self._json("GET", "/batches", params={"limit": limit, "after": after})

    @contextmanager
    def content(self, file_id: str) -> Iterator[Iterable[bytes]]:
        """The bytes of a file, as they come. Reading them raises AwayError where they are cut short."""
        path = f"/files/{quote(file_id, safe='')}/content"
        answer = self._send("GET", path, patient=True, stream=True)
        try:
            yield self._pieces(answer)
        finally:
            answer.close()

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(_PIECE_BYTES)
        except requests.RequestException as exc:
            raise AwayError(
                f"{self.url}: the download was cut short ({_reason(exc)}). Fetch it again."
            ) from exc

    def _json(self, method: str, path: str, *, patient: bool = True, **how: Any) -> dict[str, Any]:
        answer = self._send(method, path, patient=patient, **how)
        try:
            found = answer.json()
        except requests.RequestException:
            found = None
        if not isinstance(found, dict):
            raise RefusedError(
                f"{answer.url} answered {answer.status_code}, but not with a JSON object: is it an LLM Edge server?"
                " Name yours with LLM_EDGE_URL or --url.",
                http_status=answer.status_code,
                error={},
            )
        return found

    def _send(self, method: str, path: str, *, patient: bool, **how: Any) -> requests.Response:
        """An answer below 400. Where the server says when to come again, it is asked again for up to `patience_s`."""
        give_up_s = time.monotonic() + self._patience_s
        said = False
        while True:
            try:
                return self._send_once(method, path, **how)
            except AwayError as exc:
                pause_s = exc.retry_after_s
                if not patient or pause_s is None or time.monotonic() + pause_s > give_up_s:
                    raise
                if not said:
                    self._say(f"{exc.message} Trying again for up to {duration(self._patience_s)}.")
                    said = True
                time.sleep(pause_s)

    def _send_once(self, method: str, path: str, **how: Any) -> requests.Response:
        how.setdefault("timeout", _TIMEOUT_S)
        how.setdefault("allow_redirects", method == "GET")
        try:
            answer = self._session.request(method, f"{self.url}/v1{path}", **how)
        except requests.Timeout as exc:
            raise AwayError(
                f"{self.url} did not answer in time. Is it overloaded, or another program?"
            ) from exc
        except requests.RequestException as exc:
            raise AwayError(
                f"Cannot reach {self.url} ({_reason(exc)}). Start a server with `llm-edge up`,"
                " or name yours with LLM_EDGE_URL or --url."
            ) from exc
        if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise _failure(answer, method)
        return answer


class _Bearer(requests.auth.AuthBase):
    """The key, where there is one. Being an auth object keeps `requests` from putting one of ~/.netrc in its place."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key.strip() if api_key else ""
        if not (self._api_key.isascii() and self._api_key.isprintable()):
            raise UsageError("LLM_EDGE_API_KEY holds characters that no key has; copy the key again.")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_key:
            request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _once(idempotency_key: str | None) -> dict[str, str]:
    """The header by which a server knows a repeated request."""
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}


def base_of(url: str) -> str:
    """The server's URL without a trailing slash or `/v1`. Raises UsageError where it is no http(s) URL, or holds a password."""
    base = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(base)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        private = parts.username is not None
    except ValueError:
        usable = private = False
    if private:
        raise UsageError(
            "The server's URL must not carry credentials; the key is taken from LLM_EDGE_API_KEY."
        )
    if not usable:
        raise UsageError(
            f"{printable(url, 200)!r} is no URL of a server: LLM_EDGE_URL or --url must look like {DEFAULT_URL}."
        )
    return base


def _failure(answer: requests.Response, method: str) -> RefusedError | AwayError:
    """The error that an answer of 300 or more stands for."""
    status = answer.status_code
    error = _error_of(answer)
    place = urlsplit(answer.url).path
    code = error.get("code")
    about = f"{status} {printable(code, 80)}" if isinstance(code, str) else str(status)
    about += f", {method} {place}"
    if request_id := answer.headers.get("x-request-id"):
        about += f", {printable(request_id, 80)}"
    reason = printable(str(error.get("message") or answer.reason or "no reason was given"), 2000)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return AwayError(
            f"The server cannot serve this now: {reason.rstrip('.')} ({about}).",
            answered=True,
            retry_after_s=_retry_after_s(answer),
        )
    message = f"The server refused: {reason.rstrip('.')} ({about}).{_advice(status, place)}"
    return RefusedError(message, http_status=status, error=error)


def _error_of(answer: requests.Response) -> dict[str, Any]:
    """OpenAI's error object from the body, or an empty one."""
    try:
        body = answer.json()
    except (requests.RequestException, RecursionError):
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _advice(status: int, path: str) -> str:
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return " The key is taken from LLM_EDGE_API_KEY."
    if status == HTTPStatus.NOT_FOUND and "/batches/" in path:
        return " `llm-edge batch list` shows the batches there are."
    if status < HTTPStatus.BAD_REQUEST:
        return " It points to another address: give that one with LLM_EDGE_URL or --url."
    return ""


def _retry_after_s(answer: requests.Response) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or as a date; at most 300."""
    asked = answer.headers.get("retry-after", "").strip()
    if not asked:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.1), _MOST_RETRY_AFTER_S)


def _reason(exc: BaseException) -> str:
    """The operating system's words at the root of an error, such as `connection refused`; else the error's kind."""
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
        found = found.__cause__ or found.__context__
    return type(exc).__name__
