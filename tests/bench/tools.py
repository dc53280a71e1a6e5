"""The bench's own environment, `.bench/venv`: the rivals and py-spy, pinned with their hashes. Made on first use."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("rivals") / "rivals.txt"
HOME = ROOT / ".bench" / "venv"
BIN = HOME / "bin"


def ensure_tools() -> Path:
    """The folder of the environment's programs."""
    wanted = hashlib.sha256(PINS.read_bytes()).hexdigest()
    stamp = HOME / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        sys.stderr.write(f"installing the rivals and py-spy into {HOME} ...\n")
        venv.create(HOME, with_pip=True, clear=True)
        pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--require-hashes", "-r", str(PINS)], check=True)
        stamp.write_text(wanted)
    return BIN
