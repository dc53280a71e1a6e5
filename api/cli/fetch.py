"""A batch's files on their way to disk: under another name until they are whole."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from api.cli.client import Client
from api.cli.outcome import AwayError, FileError, UsageError
from api.cli.view import BatchView

STDOUT = Path("-")
_PAUSES_S = (0.2, 0.8, 2.0, 4.0, 4.0)
"""Between the tries of a download."""
_JSON_NAMES = frozenset({".jsonl", ".ndjson", ".json"})


class Targets:
    """Where output and errors go. `-` is standard output; no `output`, or no `errors`: they are not fetched."""

    def __init__(self, output: Path | None, errors: Path | None = None) -> None:
        if errors is None and output is not None and output != STDOUT:
            errors = errors_beside(output)
        self.output = output
        self.errors = errors

    def check(self, source: Path | None = None) -> None:
        """Raises UsageError, before anything is paid for, where a target could not be written or would hit another file."""
        wanted = [target for target in (self.output, self.errors) if target is not None]
        if len(wanted) != len(set(wanted)):
            raise UsageError(
                f"{wanted[0]} cannot take both the answers and the errors; name another with --errors."
            )
        for target in wanted:
            if target == STDOUT:
                continue
            if target.is_dir():
                raise UsageError(f"{target} is a folder; name a file in it.")
            folder = target.parent
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                raise UsageError(f"{target} cannot be written: {folder} is no folder that you may write to.")
            if source is not None and target.exists() and source.exists() and target.samefile(source):
                raise UsageError(f"{target} is the input file itself; name another for the results.")

    def fetch(self, client: Client, batch: BatchView) -> tuple[Path | None, Path | None]:
        """Write what the batch has; where output and errors now are, None for what there is not.

        A batch without output leaves an empty file, and without errors none, unless an old one of that name has to go.
        Raises FileError, and what Client raises.
        """
        output = errors = None
        if self.output is not None:
            save(client, batch.output_file_id, self.output)
            output = self.output
        if self.errors is not None and (batch.error_file_id or _is_old_file(self.errors)):
            save(client, batch.error_file_id, self.errors)
            errors = self.errors if batch.error_file_id else None
        return output, errors


def errors_beside(output: Path) -> Path:
    """`out.errors.jsonl` for `out.jsonl`."""
    name = output.stem if output.suffix in _JSON_NAMES else output.name
    return output.with_name(f"{name}.errors.jsonl")


def _is_old_file(path: Path) -> bool:
    return path != STDOUT and path.is_file()


def save(client: Client, file_id: str | None, target: Path) -> None:
    """Stream a file of the server's to `target`; without an id, nothing but an empty file.

    A regular file appears whole or not at all; a download that is cut short begins anew, five times over some seconds.
    """
    if target == STDOUT:
        _pour(client, file_id, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    try:
        if target.exists() and not target.is_file():  # /dev/stdout, a named pipe
            with target.open("wb") as sink:
                _pour(client, file_id, sink)
            return
        _save_whole(client, file_id, target)
    except OSError as exc:
        raise FileError(f"{target} could not be written: {exc.strerror or exc}.") from exc


def _save_whole(client: Client, file_id: str | None, target: Path) -> None:
    real = target.resolve()  # through a link, which stays one
    fresh = real.with_name(f".{real.name}.{os.getpid()}.part")
    try:
        for pause_s in (*_PAUSES_S, None):
            try:
                with fresh.open("wb") as sink:
                    _pour(client, file_id, sink)
                break
            except AwayError:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        fresh.replace(real)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _pour(client: Client, file_id: str | None, sink: BinaryIO) -> None:
    if file_id is None:
        return
    with client.content(file_id) as pieces:
        sink.writelines(pieces)
