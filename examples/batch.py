"""An unmodified OpenAI batch script: only `base_url` says that it runs on your own fleet.

pip install openai
llm-edge up                      # in another terminal
python examples/batch.py requests.jsonl answers.jsonl
"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI

TERMINAL = {"completed", "failed", "expired", "cancelled"}


def main(requests_file: Path, answers_file: Path) -> int:
    client = OpenAI(
        base_url=os.environ.get("LLM_EDGE_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ.get("LLM_EDGE_API_KEY", "none"),
    )
    with requests_file.open("rb") as source:
        file = client.files.create(file=source, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in TERMINAL:
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
        sys.stdout.write(f"{batch.status}: {batch.request_counts}\n")
    for fault in (batch.errors.data or []) if batch.errors else []:
        sys.stdout.write(f"line {fault.line}: {fault.message}\n")
    if batch.output_file_id:
        answers_file.write_bytes(client.files.content(batch.output_file_id).content)
    return 0 if batch.status == "completed" else 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
