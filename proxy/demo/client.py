"""What a user's program does: the official `openai` client, streaming, with another base_url. Nothing of Predawn.

Reads {"base_url", "model", "question", "options"} from the file it is given, writes the answer to standard output as it
arrives, and leaves {"id"} or {"error"} in the second file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def ask(task: dict[str, Any]) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=task["base_url"], api_key="demo", max_retries=0, timeout=120)
    try:
        reply = client.chat.completions.with_raw_response.create(
            model=task["model"],
            messages=[{"role": "user", "content": task["question"]}],
            stream=True,
            stream_options={"include_usage": True},
            **task["options"],
        )
        for chunk in reply.parse():
            sys.stdout.write((chunk.choices[0].delta.content or "") if chunk.choices else "")
            sys.stdout.flush()
    except openai.OpenAIError as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
    return {"id": reply.headers.get("x-request-id")}


if __name__ == "__main__":
    result = ask(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    sys.exit(1 if "error" in result else 0)
