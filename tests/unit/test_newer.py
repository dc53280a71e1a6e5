from structlog.testing import capture_logs

from shared.newer import NewerSeen
from shared.versions import VERSION


def test_a_newer_version_is_told_once_with_both_versions() -> None:
    with capture_logs() as said:
        seen = NewerSeen()
        for met in (0, VERSION + 1, VERSION + 1, 0, VERSION + 2):
            seen.note(met)
    assert [(entry["event"], entry["log_level"]) for entry in said] == [("newer_version_left", "warning")] * 2
    assert [(entry["met"], entry["reads"]) for entry in said] == [
        (VERSION + 1, VERSION),
        (VERSION + 2, VERSION),
    ]
