"""A pandas DataFrame through a batch and back, the answers joined to their rows.

pip install openai pandas
llm-edge up                      # in another terminal
python examples/dataframe.py rows.csv answers.csv                # rows.csv has a column `text`

Within a pipeline this is what you want; from a shell, `llm-edge batch run rows.csv --prompt ...` does the same, asks nothing
twice when run again, and needs no pandas.
"""

import io
import json
import os
import sys
import time
from typing import Any

import pandas as pd
from openai import OpenAI

MODEL = os.environ.get("MODEL", "gpt-4o-mini")
TERMINAL = {"completed", "failed", "expired", "cancelled"}


def requests_of(frame: pd.DataFrame) -> bytes:
    """One line a row; the row's position is its custom_id."""
    lines = [
        {
            "custom_id": str(position),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"Summarise in one sentence: {text}"}],
                "max_tokens": 60,
            },
        }
        for position, text in enumerate(frame["text"])
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def answers_of(client: OpenAI, file_ids: list[str | None], rows: int) -> pd.DataFrame:
    """A row for each row that was sent: `answer`, or why there is none in `error`."""
    found: list[dict[str, str | None]] = [{"answer": None, "error": "no outcome"} for _ in range(rows)]
    for file_id in filter(None, file_ids):
        for line in map(json.loads, client.files.content(file_id).content.splitlines()):
            found[int(line["custom_id"])] = outcome_of(line)
    return pd.DataFrame(found)


def outcome_of(line: dict[str, Any]) -> dict[str, str | None]:
    body = (line.get("response") or {}).get("body") or {}
    error = line.get("error") or body.get("error")
    if error:
        return {"answer": None, "error": error["message"]}
    return {"answer": body["choices"][0]["message"]["content"], "error": None}


def main(source: str, target: str) -> int:
    frame = pd.read_csv(source)
    client = OpenAI(
        base_url=os.environ.get("LLM_EDGE_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ.get("LLM_EDGE_API_KEY", "none"),
    )
    file = client.files.create(file=("rows.jsonl", io.BytesIO(requests_of(frame))), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in TERMINAL:
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
        sys.stdout.write(f"{batch.status}: {batch.request_counts}\n")
    answers = answers_of(client, [batch.output_file_id, batch.error_file_id], len(frame))
    frame.reset_index(drop=True).join(answers).to_csv(target, index=False)
    return 0 if batch.status == "completed" and answers["error"].isna().all() else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2]))
