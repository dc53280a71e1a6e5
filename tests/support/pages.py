"""Commands as the documentation has them, so that a test types nothing else."""

import re
import subprocess
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "ops/docs"


def commands(page: str, heading: str, number: int = 0) -> str:
    """The text of the `sh` block of that number under a heading of `ops/docs/{page}.md`, as deep as it goes."""
    text = (_DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page}.md has no heading {heading!r}"
    blocks = re.findall(r"^```sh\n(.*?)^```", found[2], re.MULTILINE | re.DOTALL)
    return str(blocks[number])


def type_in(text: str, env: dict[str, str], cwd: Path) -> str:
    """What a shell says that stops at the first failure."""
    done = subprocess.run(
        ["sh", "-eu", "-c", text], env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout
