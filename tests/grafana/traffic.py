"""Every path through Predawn, errors included, again and again for as long as one likes."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from tests.grafana.stand import Stand

EASY = "Hello, please translate: good morning"
HARD = (
    "Ann has 3 apples. Bob has 4 more than Ann. Cat has twice as many as Bob. Then Eve gets 5 fewer than Cat, and after "
    "that each gets 2 more. Prove how many there are altogether, step by step."
)
SHOP = "Ann's shop opens at nine. It sells 12 apples a day, for 3 dollars each, to whoever comes by. " * 4
LETTER = "This letter is about the garden behind the shop, its trees, and who waters them in the summer months. " * 12
STORY = "Ann has 3 apples. Bob has 4 more than Ann. How many apples does Bob have?"
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}},
}


class Traffic:
    """Clients of all kinds."""

    def __init__(self, stand: Stand, session: aiohttp.ClientSession) -> None:
        self.stand = stand
        self._session = session
        self.statuses: dict[int, int] = {}
        self._changes = 0

    async def run(self, seconds: float, *, calm: bool = False) -> None:
        """Keep every path busy, each at its own pace; `calm` is a day on which little goes wrong."""
        stop_at = time.monotonic() + seconds
        paths: list[tuple[Callable[[], Awaitable[Any]], float, float]] = [
            (self.easy, 0.25, 0.1), (self.hard, 1.0, 0.4), (self.streamed, 0.3, 0.08), (self.other_routes, 1.0, 1.0),
            (self.shaky, 0.5, 1.0), (self.cuts, 0.8, 60), (self.slow, 1.5, 90), (self.gone, 0.8, 45),
            (self.cached, 1.0, 0.7), (self.samples, 1.5, 0.8), (self.hedged, 2.0, 2.0), (self.modes, 1.0, 1.5),
            (self.known_context, 0.7, 0.3), (self.other_context, 3.0, 3.0), (self.new_context, 12.0, 60.0),
            (self.letters, 2.0, 2.0), (self.leaves, 2.0, 10.0), (self.refused, 1.0, 8.0), (self.wrong, 3.0, 20.0),
            (self.tiny, 1.0, 1.0), (self.night, 4.0, 15.0), (self.told, 2.0, 2.0), (self.reload, 25.0, 100.0),
            (self.ceiling, 4.0, 20.0),
        ]  # fmt: skip
        pauses = [(path, slow if calm else quick) for path, quick, slow in paths]
        await asyncio.gather(*(self._repeat(path, pause, stop_at) for path, pause in pauses))

    async def _repeat(self, path: Callable[[], Awaitable[Any]], pause: float, stop_at: float) -> None:
        await asyncio.sleep(random.uniform(0, min(pause, 10)))
        while time.monotonic() < stop_at:
            try:
                async with asyncio.timeout(30):
                    await path()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass  # a path may end in an error: that is what it is for
            await asyncio.sleep(min(random.uniform(0.5, 1.5) * pause, max(stop_at - time.monotonic(), 0)))

    async def ask(
        self, body: dict[str, Any], path: str = "/chat/completions", *, key: str = "acme", **headers: str
    ) -> Any:
        """One request; what its answer says, or None."""
        status, told = await self.call("POST", path, body, key=key, **headers)
        return told if status == 200 else None

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = "acme", **headers: str
    ) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {self.stand.keys[key]}"
        url = self.stand.predawn.base_url + path
        async with self._session.request(method, url, json=body, headers=named) as reply:
            raw = await reply.read()
            self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
            told = json.loads(raw) if reply.content_type == "application/json" else raw
            return reply.status, (reply.headers.get("x-request-id"), told)

    def chat(self, text: str, model: str = "m", **more: Any) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": text}], **more}

    async def easy(self) -> None:
        await self.ask(self.chat(f"{EASY} {random.random()}"), key=random.choice(("acme", "solo")))

    async def hard(self) -> None:
        await self.ask(self.chat(HARD), key=random.choice(("acme", "solo")))

    async def streamed(self) -> None:
        await self.ask(self.chat(f"{EASY} {random.random()}", stream=True), key=random.choice(("acme", "solo")))

    async def other_routes(self) -> None:
        await self.ask({"model": "m", "prompt": EASY}, "/completions")
        await self.ask({"model": "m", "input": EASY, "stream": True}, "/responses")
        await self.ask({"model": "m", "input": EASY}, "/embeddings")
        await self.ask({**self.chat(EASY), "max_tokens": 100, "stream": True}, "/messages")
        await self.call("GET", "/files")

    async def shaky(self) -> None:
        await self.ask(self.chat(EASY, "shaky", stream=random.random() < 0.5))

    async def cuts(self) -> None:
        await self.ask(self.chat(EASY, "cuts", stream=True), key="solo")

    async def slow(self) -> None:
        await self.ask(self.chat(EASY, "slow", stream=True))

    async def gone(self) -> None:
        await self.ask(self.chat(EASY, "gone"))

    async def cached(self) -> None:
        await self.ask(self.chat("The same again", temperature=0, seed=1), x_predawn_cache="true")

    async def samples(self) -> None:
        for strategy in ("vote", "first_m_of_k", "waves", "confidence", "best_of", "judge", "revise"):
            await self.ask(self.chat(HARD, predawn={"budget": "off", "sampling": {"strategy": strategy, "samples": 5}}))

    async def hedged(self) -> None:
        await self.ask(self.chat(HARD, stream=True, predawn={"sampling": {"strategy": "hedge", "samples": 2}}))

    async def modes(self) -> None:
        for mode in ("observe", "gate", "optimistic", "intervene"):
            await self.ask(self.chat("How many apples?", stream=True, predawn={"verify": {"mode": mode}}))
        retry = {"verify": {"mode": "gate", "then": "retry", "retries": 2}}
        await self.ask(self.chat("How many apples?", predawn=retry))

    async def new_context(self) -> None:
        self._changes += 1
        text = SHOP + f"It has {self._changes} windows. " * (self._changes % 3)
        await self.call("POST", "/contexts", {"id": "shop", "text": text, "model": "m", "ttl_s": 3600})
        await self.call(
            "POST", "/contexts", {"id": f"c{self._changes}", "text": text + "More.", "model": "m", "ttl_s": 2}
        )
        await self.call("POST", "/contexts/shop/sleep")

    async def known_context(self) -> None:
        found = await self.ask(
            self.chat("How much does the shop earn a day?", predawn={"context": "shop"}, stream=random.random() < 0.5)
        )
        if found and random.random() < 0.1:
            await self.call("POST", f"/exchanges/{found[0]}/regret")

    async def other_context(self) -> None:
        await self.ask(self.chat("Anything else?"), x_predawn_sleep="off")

    async def letters(self) -> None:
        letter = random.choice("abcdefgh")
        messages = [{"role": "system", "content": letter + LETTER}, {"role": "user", "content": "Who waters them?"}]
        await self.ask({"model": "m", "messages": messages})

    async def leaves(self) -> None:
        url = self.stand.predawn.base_url + "/chat/completions"
        headers = {"Authorization": f"Bearer {self.stand.keys['acme']}"}
        async with self._session.post(url, json=self.chat(EASY, stream=True), headers=headers) as reply:
            await reply.content.readany()
            reply.close()

    async def refused(self) -> None:
        await self.ask(self.chat(EASY), key="limited")

    async def wrong(self) -> None:
        await self.ask(self.chat(EASY, "nobody"))
        await self.ask({"model": "m"})
        url = self.stand.predawn.base_url + "/chat/completions"
        async with self._session.post(url, json=self.chat(EASY), headers={"Authorization": "Bearer no"}) as reply:
            self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1

    async def tiny(self) -> None:
        await asyncio.gather(
            *(
                self.ask(self.chat(STORY, "tiny", max_tokens=200, stream=stream, predawn={"budget": "off"}))
                for stream in (True, False) * 4
            )
        )

    async def night(self) -> None:
        """Somebody who is up late: sleep has to wait."""
        await self.ask(self.chat(f"{EASY} {random.random()}", "night"))

    async def told(self) -> None:
        found = await self.ask(self.chat(f"{HARD} {random.random()}"))
        if found:
            await asyncio.sleep(0.6)
            await self.call("POST", f"/exchanges/{found[0]}/feedback", {"correct": random.random() < 0.8})

    async def ceiling(self) -> None:
        await self.ask(self.chat(HARD, predawn={"budget": {"effort": "high", "samples": 32}}))

    async def reload(self) -> None:
        """A reload that works, and one of a file that is broken."""
        file, process = self.stand.settings_file, self.stand.predawn.child.process
        kept = file.read_text()
        file.write_text(kept.replace('"plugins"', '"plugin"'))
        process.send_signal(signal.SIGHUP)
        await asyncio.sleep(2)
        file.write_text(kept + "\n")
        process.send_signal(signal.SIGHUP)
        await asyncio.sleep(3)
