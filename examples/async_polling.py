"""Hand jobs in and fetch their results later: `Prefer: respond-async` and `GET /v1/jobs/{id}`, with the stock SDK.

pip install openai
llm-edge up                      # in another terminal
python examples/async_polling.py prompts.txt > answers.jsonl     # one prompt a line

The server has written each job down before it answers 202. The ids are all you need: end this script, come back tomorrow.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

MODEL = os.environ.get("MODEL", "gpt-4o-mini")
IN_FLIGHT = 16
FIRST_PAUSE_S, MOST_PAUSE_S = 0.2, 5.0
ENDED = {"completed", "failed", "cancelled", "expired"}


async def submit(client: AsyncOpenAI, prompt: str) -> str:
    """The job's id."""
    accepted = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=60,
        extra_headers={"Prefer": "respond-async"},
    )
    return accepted.headers["location"].rsplit("/", 1)[-1]  # 202, Location: /v1/jobs/job_...


async def fetch(client: AsyncOpenAI, job_id: str) -> dict[str, Any]:
    """The job once it has ended."""
    pause_s = FIRST_PAUSE_S
    while True:
        job = await client.get(f"/jobs/{job_id}", cast_to=dict[str, Any])
        if job["status"] in ENDED:
            return job
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, MOST_PAUSE_S)


async def ask(client: AsyncOpenAI, room: asyncio.Semaphore, prompt: str) -> dict[str, Any]:
    async with room:
        job = await fetch(client, await submit(client, prompt))
    answer = None
    if job["status"] == "completed":
        answer = job["response"]["body"]["choices"][0]["message"]["content"]
    return {"prompt": prompt, "job": job["id"], "status": job["status"], "answer": answer}


async def main(prompts: list[str]) -> int:
    room = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(
        base_url=os.environ.get("LLM_EDGE_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ.get("LLM_EDGE_API_KEY", "none"),
    ) as client:
        answers = await asyncio.gather(*(ask(client, room, prompt) for prompt in prompts))
    for answer in answers:  # in the order of the prompts
        sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if all(answer["status"] == "completed" for answer in answers) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(Path(sys.argv[1]).read_text().splitlines())))
