"""The pictures of docs/live.md: `python -m tests.page.pictures [FOLDER]`.

A server on scripted upstreams, with all features on, that has slept on a handbook before it is asked about it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.page.browser import browser, chromium
from tests.page.site import HANDBOOK, MODELS, PLUGINS, UPSTREAMS, site

from predawn.plugins.testing import scripted_server
from predawn.proxy.upstreams.scripted import Answer, Received

CONTEXTS = ("handbook", "tariffs", "timetable")
NOTES = "<notes>\n- Two tram tickets cost 2 * 3 = 6 crowns\n- Five of them cost 5 * 3 = 15 crowns\n</notes>"
ANSWER = Answer(text="A tram ticket costs 3 crowns, so two cost 2 * 3 = 6 crowns.", first_byte_ms=120, interval_ms=45)


def thinks(received: Received) -> Answer | str:
    """A provider that writes notes, checks them, and answers."""
    if "Write better notes" in received.text:
        return Answer(text=NOTES, first_byte_ms=300, interval_ms=40)
    if "Judge every claim" in received.text:
        return "1: right\n2: right"
    return ANSWER


def settings(provider: str) -> dict[str, Any]:
    sleep = {"model": "clerk", "check_model": "clerk", "idle_s": 0.2, "policy": "always", "questions": 0, "warm": False}
    return {
        "upstreams": [*UPSTREAMS, {"name": "clerk", "base_url": provider}],
        "models": [{"name": "clerk", "upstream": "clerk"}, *MODELS],
        "plugins": [{"sleep": sleep}, *PLUGINS[1:]],
    }


SLEPT = """
[...document.querySelectorAll('#contexts tbody tr')].filter((row) => /asleep|skipped|failed/.test(row.textContent)).length === 3
"""


async def draw(folder: Path) -> None:
    program = chromium()
    if program is None:
        sys.exit("Chromium is needed to draw pictures of the page (Debian: apt-get install chromium).")
    async with (
        scripted_server(choose=thinks) as provider,
        site(settings(provider.base_url)) as here,
        browser(program) as chrome,
        chrome.tab(1440, 1340) as tab,
    ):
        for name in CONTEXTS:
            await here.register(name, f"The {name} of the tram. {HANDBOOK * 30}")
        await tab.open(here.url)
        try:
            await tab.until(SLEPT, seconds=60)
        except AssertionError:
            print("not all contexts are slept on; go on")
        models = ["clerk", "qwen3-8b", "quick", "clerk", "llama-70b", "clerk", "wrong", "shaky", "clerk", "quick"]
        async with here.load(4, models, samples=0.06, about=f"The handbook of the tram. {HANDBOOK * 30}"):
            await asyncio.sleep(27)
            await tab.js("document.getElementById('try-prompt').value = 'What does a tram ticket cost?'")
            await tab.js("document.getElementById('try').requestSubmit()")
            await asyncio.sleep(3)
            for scheme in ("light", "dark"):
                await tab.scheme(scheme)
                await asyncio.sleep(0.5)
                await tab.picture(folder / f"live-{scheme}.png")


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")))
