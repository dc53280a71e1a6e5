"""Many completions at once with AsyncOpenAI, sixteen in flight: an unmodified script, but for `base_url`.

pip install openai
llm-edge up                      # in another terminal
python examples/async_many.py prompts.txt > answers.jsonl        # one prompt a line

Every call waits for its answer. For thousands of prompts a batch is better: see batch.py.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from openai import APIStatusError, AsyncOpenAI

IN_FLIGHT = 16
MODEL = os.environ.get("MODEL", "gpt-4o-mini")


async def ask(client: AsyncOpenAI, room: asyncio.Semaphore, prompt: str) -> dict[str, str | None]:
    async with room:
        try:
            answer = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=60
            )
        except APIStatusError as exc:  # the client has repeated by itself what may be repeated
            return {"prompt": prompt, "answer": None, "error": f"{exc.status_code}: {exc.message}"}
    return {"prompt": prompt, "answer": answer.choices[0].message.content, "error": None}


async def main(prompts: list[str]) -> int:
    room = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(
        base_url=os.environ.get("LLM_EDGE_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ.get("LLM_EDGE_API_KEY", "none"),
    ) as client:
        answers = await asyncio.gather(*(ask(client, room, prompt) for prompt in prompts))
    for answer in answers:  # in the order of the prompts
        sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if any(answer["error"] for answer in answers) else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(Path(sys.argv[1]).read_text().splitlines())))
