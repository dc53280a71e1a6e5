"""What a command ends with: its exit code, and what can go wrong on the way to it."""

from enum import IntEnum
from typing import Any

from api.cli.view import BatchView
from shared.errors import EdgeError


class Exit(IntEnum):
    """Exit codes for scripts."""

    COMPLETED = 0
    REFUSED = 1
    """Some jobs failed, or the request was refused."""
    USAGE = 2
    NOT_RUN = 3
    """The batch failed validation, expired, or was cancelled."""
    UNREACHABLE = 4
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 every job completed; 1 some jobs failed, or the request was refused; 2 wrong usage;"
    " 3 the batch failed validation, expired or was cancelled; 4 the server cannot be reached or cannot serve now;"
    " 130 interrupted."
)
"""For the help of the commands that wait for a batch."""

ANSWER_CODES = (
    "Exit codes: 0 the server has answered; 1 it refused; 2 wrong usage;"
    " 4 it cannot be reached or cannot serve now; 130 interrupted."
)
"""For the help of the others."""

ESTIMATE_CODES = (
    "Exit codes: 0 the estimate is made; 1 there is no providers file, or a faulty one; 2 wrong usage;"
    " 3 the file is no batch."
)
"""For the help of the one that needs no server."""


def exit_of(batch: BatchView) -> Exit:
    """The code for an ended batch."""
    if batch.status != "completed":
        return Exit.NOT_RUN
    return Exit.REFUSED if batch.failed else Exit.COMPLETED


class CommandError(EdgeError):
    """Ends a command with one message and an exit code."""

    exit = Exit.REFUSED

    def document(self) -> dict[str, Any]:
        """What `--json` prints instead of a result."""
        return self.envelope()


class UsageError(CommandError):
    """The command line asks for something that makes no sense."""

    type = "invalid_request_error"
    default_code = "usage"
    exit = Exit.USAGE


class FaultyInputError(CommandError):
    """The input file cannot become a batch."""

    type = "invalid_request_error"
    default_code = "faulty_input"
    exit = Exit.NOT_RUN


class FileError(CommandError):
    """A local file cannot be read or written."""

    default_code = "file_error"


class RefusedError(CommandError):
    """The server answered that it will not."""

    default_code = "refused"

    def __init__(self, message: str, *, http_status: int, error: dict[str, Any]) -> None:
        super().__init__(message, code=error.get("code"), param=error.get("param"))
        self.http_status = http_status
        self._error = error

    def document(self) -> dict[str, Any]:
        return {"error": self._error} if self._error.get("message") else self.envelope()


class AwayError(CommandError):
    """The server cannot be reached, or cannot serve now; the same request may succeed later."""

    default_code = "server_away"
    exit = Exit.UNREACHABLE

    def __init__(self, message: str, *, answered: bool = False, retry_after_s: float | None = None) -> None:
        """`answered`: the server said so itself; else nobody knows whether it took the request."""
        super().__init__(message)
        self.answered = answered
        self.retry_after_s = retry_after_s


class InterruptedCommandError(CommandError):
    """Ctrl-C; what was begun goes on without the command."""

    default_code = "interrupted"
    exit = Exit.INTERRUPTED
