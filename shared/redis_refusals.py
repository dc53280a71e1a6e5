"""What it means when Redis is there and does not let us in: certificate, password, permissions; and what to do about it."""

import re

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

# What OpenSSL says, in its order of precedence, and what that means. It reaches us only as text within redis-py's errors.
_TLS: tuple[tuple[str, str], ...] = (
    (
        r"hostname mismatch|ip address mismatch|doesn't match",
        (
            "Redis' certificate was made out to another name than the one it is reached by. Use a host name that stands "
            "in the certificate (sentinels: `resolve-hostnames yes`), or set REDIS_TLS_VERIFY=ca"
        ),
    ),
    (
        r"certificate has expired|not yet valid",
        "Redis' certificate has expired or is not valid yet. Renew it, or set this machine's clock",
    ),
    (
        r"certificate_verify_failed",
        (
            "Redis' certificate was not signed by an authority that is trusted here. Set REDIS_TLS_CA to the file of the "
            "authority that signed it"
        ),
    ),
    (
        r"certificate required|certificate_required|sslv3 alert handshake failure|sslv3_alert_handshake_failure",
        (
            "Redis wants a client certificate. Set REDIS_TLS_CERT and REDIS_TLS_KEY to one that its authority signed"
        ),
    ),
    (
        r"alert unknown ca|alert_unknown_ca|alert bad certificate|alert_bad_certificate|alert_certificate_expired",
        "Redis does not accept the client certificate. Set REDIS_TLS_CERT and REDIS_TLS_KEY to one that its authority signed",
    ),
    (
        r"wrong version number|wrong_version_number|record layer failure|packet length too long",
        "Redis does not speak TLS at this port. Use its TLS port, or a redis:// (sentinel://) URL",
    ),
    (
        r"\[ssl\] pem lib|no start line|no certificate or crl found|key values mismatch|key_values_mismatch",
        "REDIS_TLS_CA, REDIS_TLS_CERT or REDIS_TLS_KEY holds no certificate or key (PEM), or the two do not belong together",
    ),
)
_SENTINEL_TEXT = re.compile(r"No master found for")
_COMMAND = re.compile(r"'([a-z|_-]{1,40})' command", re.IGNORECASE)


def refusal(exc: BaseException) -> str | None:
    """What Redis or TLS refuses and what to do, or None where it simply was not to be reached.

    Neither host nor user name nor password is in it, so that it may be shown to callers.
    """
    said = " ".join(_texts(exc))
    for pattern, meaning in _TLS:
        if re.search(pattern, said, re.IGNORECASE):
            return meaning
    if _denied(exc, said):
        return _permission(said)
    if isinstance(exc, AuthenticationError | AuthorizationError) or re.search(
        r"AuthenticationError|NOAUTH|WRONGPASS", said
    ):
        if _SENTINEL_TEXT.search(said):
            return (
                "a sentinel refuses the password. Set REDIS_SENTINEL_PASSWORD (and REDIS_SENTINEL_USERNAME)"
            )
        return "Redis refuses the user name or password. Set them in REDIS_URL, or by REDIS_USERNAME and REDIS_PASSWORD"
    return None


def _denied(exc: BaseException, said: str) -> bool:
    """Also within a script, where it comes as an ordinary error."""
    return isinstance(exc, NoPermissionError) or "NOPERM" in said or "ACL failure in script" in said


def _permission(said: str) -> str:
    if command := _COMMAND.search(said):
        what = f"the command {command[1].upper()}"
    elif "channel" in said:
        what = "a pub/sub channel"
    elif "key" in said:
        what = "a key"
    else:
        what = "something that is needed"
    return f"Redis' ACL denies this process {what}. Give its user what `llm-edge config acl` prints"


def _texts(exc: BaseException) -> list[str]:
    """The error's words and those of what led to it; redis-py raises without `from`."""
    found: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(seen) < 8:  # noqa: PLR2004  deep enough
        seen.add(id(link))
        if isinstance(link, RedisError | OSError):
            found.append(str(link))
        link = link.__cause__ or link.__context__
    return found
