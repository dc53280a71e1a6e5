"""What `llm-edge up` cannot go on with. The command line prints the message and exits 1."""

from shared.errors import EdgeError


class UpError(EdgeError):
    """The embedded stack cannot start or stay up; the message says why, where, and what to do."""

    default_code = "up_failed"
