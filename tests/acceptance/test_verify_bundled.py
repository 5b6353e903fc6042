"""The bundled model, put right while it thinks."""

import asyncio
import re

import openai
import pytest

pytest.importorskip("torch")

from predawn.plugins.testing import predawn_server

STORY = "Ann has 3 apples. Bob has 4 more than Ann. Cat has 9 more than Bob. How many apples does Cat have?"
SETTINGS = {
    "upstreams": [{"name": "tiny", "kind": "local"}],
    "models": [{"name": "tiny", "upstream": "tiny", "prefill": True}],
    "plugins": [{"verify": {"mode": "intervene", "verifiers": ["arithmetic"], "corrections": 12}}],
}
SUM = re.compile(r"(?<!\S)(\d+) \+ (\d+) = (\d+)\.")


def is_right(thoughts):
    return all(int(one) + int(two) == int(three) for one, two, three in SUM.findall(thoughts))


async def test_a_slip_in_its_thoughts_is_put_right_before_it_answers():
    async with (
        predawn_server(SETTINGS) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=60) as client,
    ):

        async def ask(seed):
            answer = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": STORY}], temperature=1.4, seed=seed, max_tokens=200
            )
            told = answer.choices[0].message.model_dump().get("reasoning_content") or ""
            return told, answer.usage.model_dump()["predawn"]["verify"].get("corrections", 0)

        answers = await asyncio.gather(*(ask(seed) for seed in range(24)))

    assert sum(corrections for _, corrections in answers) >= 1
    assert [thoughts for thoughts, _ in answers if not is_right(thoughts)] == []
