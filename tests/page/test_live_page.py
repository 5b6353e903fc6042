"""The live page as a person has it: seen, walked by keyboard, read out, attacked, and under load."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.page.browser import Browser, Tab
from tests.page.checks import CONTRAST, WALK, frames
from tests.page.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
LIVE = "document.getElementById('connection').dataset.state === 'live'"
HOSTILE = "<img src=x onerror=alert(1)>"


async def shown(tab: Tab, here: Site) -> None:
    await tab.open(here.url)
    await tab.until(LIVE)


async def lead_to_nothing_bad(tab: Tab, here: Site) -> None:
    """No complaint of the browser's, nothing forbidden tried, and nobody else asked."""
    assert tab.errors == []
    assert await tab.js("violations") == []
    assert await tab.js("struck") == []
    assert [url for url in tab.requests if not url.startswith(here.url)] == []


async def test_it_is_painted_within_a_second_and_asks_nobody_else(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await tab.until("document.querySelector('#upstreams tbody').children.length === 5")

    paints = await tab.js("paints")
    assert paints["first-contentful-paint"] < 1000
    assert "Plugins, in their order: sleep, budget" in await tab.js("document.getElementById('plugins').textContent")
    await lead_to_nothing_bad(tab, here)


async def test_the_timeline_moves_smoothly_at_two_hundred_requests_per_second(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    async with here.load(200, ["quick"]):
        await tab.until("predawn.timeline.rows.size > 150")
        seen = await tab.js(frames(4))
        note = await tab.js("document.getElementById('timeline-note').textContent")

    assert seen["fps"] >= 30, seen
    assert seen["drawn"] >= 30, seen
    assert seen["nodes"] < 1500
    assert note.startswith("A sample:")
    await lead_to_nothing_bad(tab, here)


async def test_bars_flow_to_the_left(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    ident = await here.ask()
    find = f"[...predawn.timeline.rows.values()].find((row) => row.id === '{ident}')"
    await tab.until(f"{find}?.closed")
    before = await tab.js(f"predawn.timeline.x({find}.start)")
    await tab.until(f"predawn.timeline.x({find}.start) < {before} - 10")

    row = await tab.js(find)
    assert row["lane"] >= 0
    assert await tab.js("document.getElementById('empty').hidden")


async def test_a_check_that_objects_and_samples_are_drawn(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await here.ask("wrong", "What is 2 + 2?")
    await here.ask("quick", "x", predawn={"sampling": {"strategy": "vote", "samples": 4}})

    await tab.until("[...predawn.timeline.rows.values()].some((row) => row.checks?.[1] > 0)")
    sampled = await tab.until("[...predawn.timeline.rows.values()].find((row) => row.calls?.length >= 3)")
    assert sampled["units"] > 4


async def walk(tab: Tab, most: int = 60) -> list[dict[str, object]]:
    """Where Tab leads, until it comes round."""
    stops = []
    for _ in range(most):
        await tab.press("Tab")
        at = await tab.js(WALK)
        if at["tag"] == "BODY":
            break
        stops.append(at)
    return stops


async def test_everything_is_reached_by_keyboard_and_shows_that_it_is(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await here.register("book")
    await here.ask()
    await tab.until("document.querySelector('#latest tbody button')")
    await tab.until("document.querySelector('#contexts tbody button')")
    stops = await walk(tab)

    ids = [stop["id"] for stop in stops]
    wanted = [
        "pause",
        "scheme",
        "window",
        "timeline",
        "contexts",
        "upstreams",
        "try-prompt",
        "try-model",
        "try-tokens",
        "try-go",
    ]
    assert [ident for ident in ids if ident in wanted] == wanted
    assert stops[0]["text"] == "Skip to the timeline"
    assert [stop for stop in stops if not stop["ring"]] == []
    assert [stop for stop in stops if not stop["inside"]] == []


async def test_an_exchange_is_chosen_and_opened_by_keyboard(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    first, second = await here.ask(), await here.ask()
    await tab.until("predawn.timeline.rows.size === 2 && predawn.timeline.visible().every((row) => row.closed)")
    await tab.js("document.getElementById('timeline').focus()")
    said = "document.getElementById('chosen').textContent"

    await tab.press("ArrowLeft")
    assert (await tab.js(said)).startswith(second)
    await tab.press("ArrowLeft")
    assert (await tab.js(said)).startswith(first)
    await tab.press("Enter")
    body = "document.getElementById('record-body').textContent"
    await tab.until(f"document.getElementById('record').open && {body}.includes('When its tokens were paid')")
    assert first in await tab.js("document.getElementById('record-title').textContent")
    await tab.press("Escape")
    await tab.until("!document.getElementById('record').open")
    assert await tab.js("document.activeElement.id") == "timeline"
    await tab.press("Escape")
    assert await tab.js(said) == ""


async def test_what_is_chosen_is_shown_as_it_changes_and_read_out_when_it_is_over(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    asking = asyncio.get_running_loop().create_task(here.ask("llama-70b"))
    await tab.until("predawn.timeline.visible().some((row) => row.closed === undefined)")
    await tab.js("document.getElementById('timeline').focus()")
    await tab.press("ArrowLeft")
    shows, told = (f"document.getElementById('{name}').textContent" for name in ("chosen", "chosen-told"))
    first = await tab.js(told)
    await tab.until(f"{shows}.includes('first token')")
    between = await tab.js(told)
    await asking
    await tab.until(f"{shows}.includes('ok after')")

    assert "on its way" in first
    assert between == first
    assert "ok after" in await tab.js(told)


async def test_another_server_at_the_same_place_begins_with_an_empty_picture(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await here.ask()
    await tab.until("predawn.timeline.rows.size === 1 && document.querySelector('#latest tbody button')")

    here.server.server.app.live._process = "another"

    await tab.until("predawn.timeline.rows.size === 0 && !document.querySelector('#latest tbody button')")


async def test_rows_keep_their_focus_when_they_move_and_none_is_there_twice(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    seen = await tab.js("""import("/live/dom.js").then(({ keyed, el }) => {
      const body = el("tbody");
      document.body.append(el("table", {}, body));
      const show = (...names) => keyed(body, names, (one) => one, (one) => el("tr", {}, el("td", {}, el("button", {}, one))), () => {});
      show("a", "b", "c");
      body.querySelectorAll("button")[2].focus();
      show("c", "a", "b");
      const focused = document.activeElement.textContent;
      show("a", "a", "b");
      show("a", "a", "b");
      return [focused, [...body.rows].map((row) => row.textContent)];
    })""")

    assert seen == ["c", ["a", "b"]]


async def test_it_works_where_the_browser_remembers_nothing(tab: Tab, here: Site) -> None:
    deny = "Object.defineProperty(globalThis, '{}', {{ get() {{ throw new DOMException('no', 'SecurityError'); }} }});"
    source = "".join(deny.format(name) for name in ("localStorage", "sessionStorage"))
    await tab.call("Page.addScriptToEvaluateOnNewDocument", source=source)

    await shown(tab, here)
    await tab.js("document.getElementById('scheme').dispatchEvent(new Event('change'))")

    await lead_to_nothing_bad(tab, here)


async def test_a_record_shows_what_was_decided_and_nothing_that_was_said(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await here.ask("quick", "a-secret-word")
    await tab.until("document.querySelector('#latest tbody button')")
    await tab.js("document.querySelector('#latest tbody button').click()")
    text = await tab.until(
        "(() => { const text = document.getElementById('record-body').textContent;"
        " return text.includes('Decisions') && text; })()"
    )

    assert "allocated" in text
    assert "a-secret-word" not in await tab.js("document.documentElement.outerHTML")
    await lead_to_nothing_bad(tab, here)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_and_every_bar_stands_out(tab: Tab, here: Site, scheme: str) -> None:
    await tab.scheme(scheme)
    await shown(tab, here)
    await here.register("book")
    await asyncio.gather(*(here.ask(model) for model in ("quick", "shaky", "shaky", "shaky", "wrong")))
    await tab.until("document.querySelectorAll('#latest tbody tr').length >= 5")
    seen = await tab.js(CONTRAST)
    await tab.js("document.querySelector('#latest tbody button').click()")
    await tab.until("document.getElementById('record-body').textContent.includes('paid')")
    inside = await tab.js(CONTRAST)

    assert (seen["poor"], inside["poor"]) == ([], [])
    assert seen["looked"] > 80
    ground = await tab.js("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(", "))) > 382) == (scheme == "light")


async def test_colours_are_chosen_by_hand_and_remembered(tab: Tab, here: Site) -> None:
    await tab.scheme("light")
    await shown(tab, here)
    choose = "(() => { const one = document.getElementById('scheme'); one.value = 'dark'; one.dispatchEvent(new Event('change')); })()"
    await tab.js(choose)
    dark = await tab.js("getComputedStyle(document.documentElement).backgroundColor")
    bars = await tab.js("predawn.timeline.colours.during")
    await tab.open(here.url)
    await tab.until(LIVE)

    assert await tab.js("getComputedStyle(document.documentElement).backgroundColor") == dark
    assert await tab.js("predawn.timeline.colours.during") == bars


async def test_a_screen_reader_is_told_the_name_of_everything(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await here.register("book")
    await here.ask()
    await tab.until(
        "document.querySelector('#latest tbody button') && document.querySelector('#contexts tbody button')"
    )
    nodes = await tab.tree()
    named = {
        "button",
        "link",
        "textbox",
        "combobox",
        "spinbutton",
        "application",
        "progressbar",
        "dialog",
        "image",
        "region",
    }
    nameless = [
        node["role"]["value"]
        for node in nodes
        if node["role"]["value"] in named and not (node.get("name") or {}).get("value")
    ]
    headings = [
        next(prop["value"]["value"] for prop in node["properties"] if prop["name"] == "level")
        for node in nodes
        if node["role"]["value"] == "heading"
    ]
    roles = {node["role"]["value"] for node in nodes}

    assert nameless == []
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(headings, headings[1:]))
    assert {"banner", "main", "contentinfo", "navigation", "table"} <= roles
    assert await tab.js("document.documentElement.lang && document.title")


@pytest.mark.parametrize("width", [360, 768, 1440])
async def test_it_fits_into_every_window(tab: Tab, here: Site, width: int) -> None:
    await tab.size(width, 900)
    await shown(tab, here)
    await here.ask()
    await tab.until("document.querySelector('#latest tbody button')")

    assert await tab.js("document.documentElement.scrollWidth") <= width


async def test_somebody_who_wants_no_motion_gets_four_pictures_a_second(tab: Tab, here: Site) -> None:
    await tab.scheme("light", still=True)
    await shown(tab, here)
    async with here.load(20, ["quick"]):
        await tab.until("predawn.timeline.rows.size > 5")
        seen = await tab.js(frames(3))

    assert 2 <= seen["drawn"] <= 6, seen


async def test_pause_stops_the_picture(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    async with here.load(20, ["quick"]):
        await tab.until("predawn.timeline.rows.size > 5")
        await tab.js("document.getElementById('pause').click()")
        before = await tab.js("[predawn.timeline.now(), predawn.timeline.rows.size]")
        await here.ask()
        after = await tab.js("[predawn.timeline.now(), predawn.timeline.rows.size]")
        assert await tab.js("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        await tab.js("document.getElementById('pause').click()")
        await tab.until(f"predawn.timeline.now() > {before[0]} + 100")

    assert after == before


class TestAttacks:
    @pytest.fixture
    def settings(self):
        failing = {"status": 400, "body": {"error": {"message": HOSTILE}}}
        return {
            "upstreams": [
                {"name": HOSTILE, "kind": "scripted", "script": {"text": HOSTILE}},
                {"name": "bad", "kind": "scripted", "script": failing},
            ],
            "models": [{"name": "*", "upstream": HOSTILE}, {"name": "bad", "upstream": "bad"}],
            "plugins": [{"sleep": {}}, {"record": {"record_content": True}}],
        }

    async def test_what_clients_name_and_models_say_is_never_markup(self, tab: Tab, here: Site) -> None:
        await shown(tab, here)
        for text in (
            HOSTILE,
            "</script><script>alert(1)</script>",
            "javascript:alert(1)",
            "\u202eevil\u202c",
            "${alert(1)}",
        ):
            await here.ask(text, text)
        await here.ask("bad", HOSTILE)
        await tab.until("document.querySelectorAll('#latest tbody tr').length >= 6")
        await tab.js("document.querySelectorAll('#latest tbody button')[3].click()")
        await tab.until("document.getElementById('record-body').textContent.includes('paid')")
        await tab.js("document.getElementById('record').close()")
        await tab.js(f"document.getElementById('try-prompt').value = {json.dumps(HOSTILE)}")
        for model in ("bad", HOSTILE):
            await tab.js(f"document.getElementById('try-model').value = {json.dumps(model)}")
            await tab.js("document.getElementById('try').requestSubmit()")
            await tab.until("!document.getElementById('try-go').disabled")
            assert HOSTILE in await tab.js("document.querySelector('#answer-on .text').textContent")

        assert await tab.js("document.querySelectorAll('main img, main script, iframe').length") == 0
        requests = [url for url in tab.requests if url.endswith("/x")]
        assert requests == []
        assert await tab.js("struck") == []
        assert await tab.js("violations") == []

    async def test_markup_by_script_is_refused_by_the_browser_itself(self, tab: Tab, here: Site) -> None:
        await shown(tab, here)

        with pytest.raises(Exception, match="TrustedHTML"):
            await tab.js("document.body.innerHTML = '<b>x</b>'")
        assert (
            await tab.js(
                "new Promise((done) => { const one = document.createElement('script');"
                " try { one.textContent = 'globalThis.ran = 1'; document.body.append(one); } catch { /* refused at once */ }"
                " setTimeout(() => done(globalThis.ran), 50); })"
            )
            is None
        )

    async def test_another_site_cannot_frame_it(self, chrome: Browser, here: Site) -> None:
        async with chrome.tab() as other:
            await other.open("about:blank")
            await other.js(
                "new Promise((done) => document.body.append(Object.assign(document.createElement('iframe'),"
                f" {{ src: '{here.url}', onload: done }})))"
            )
            await asyncio.sleep(1.5)  # longer than the page takes to begin to watch
            framed = len(here.server.server.app.live.viewers)
            await shown(other, here)
            alone = len(here.server.server.app.live.viewers)

        assert (framed, alone) == (0, 1)


async def test_a_prompt_is_asked_twice_and_both_answers_are_told_apart(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await tab.until("document.getElementById('try-model').value === 'qwen3-8b'")
    await tab.js("document.getElementById('try-prompt').focus()")
    await tab.js("document.getElementById('try-go').click()")
    await tab.until("document.querySelector('#answer-on .text').textContent.length > 5")
    await tab.until("!document.getElementById('try-go').disabled")
    on, off = [await tab.js(f"document.getElementById('answer-{side}').textContent") for side in ("on", "off")]

    for text in (on, off):
        assert "first token" in text
        assert "40 tokens" in text
    assert "answered after" in await tab.js("document.getElementById('try-told').textContent")
    for side, decided in (("on", True), ("off", False)):
        await tab.js(f"document.querySelector('#answer-{side} button').click()")
        await tab.until("document.getElementById('record-body').textContent.includes('Calls')")
        assert ("allocated" in await tab.js("document.getElementById('record-body').textContent")) is decided
        await tab.js("document.getElementById('record').close()")
    await lead_to_nothing_bad(tab, here)


async def test_a_try_can_be_stopped(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    await tab.js("document.getElementById('try-model').value = 'llama-70b'")
    await tab.js("document.getElementById('try').requestSubmit()")
    await tab.until("document.querySelector('#answer-on .text').textContent.length > 5")
    await tab.js("document.getElementById('try-stop').click()")
    await tab.until("!document.getElementById('try-go').disabled")

    assert "(stopped)" in await tab.js("document.querySelector('#answer-on .text').textContent")


class TestKeys:
    @pytest.fixture
    def settings(self):
        return {"server": {"admin_key": "an-admin-key-of-some-length"}, "access": {"keys": "required"}}

    async def enter(self, tab: Tab, key: str) -> None:
        await tab.until("!document.getElementById('key-form').hidden && document.activeElement.id === 'key'")
        await tab.type(key)
        await tab.press("Enter")

    async def test_the_key_is_asked_for_and_kept_for_this_tab_only(self, tab: Tab, here: Site) -> None:
        await tab.open(here.url)
        await self.enter(tab, "schlüssel-mit-umlaut")
        await tab.until("document.getElementById('key-why').textContent.includes('signs that no key has')")
        await self.enter(tab, "not-the-key-at-all")
        await tab.until("document.getElementById('key-why').textContent.includes('not the admin key.')")
        await self.enter(tab, "an-admin-key-of-some-length")
        await tab.until(LIVE)

        assert await tab.js("document.getElementById('key-form').hidden")
        assert "an-admin-key" not in await tab.js("JSON.stringify(localStorage) + location.href + document.cookie")
        assert [url for url in tab.requests if "an-admin-key" in url] == []
        await tab.open(here.url)
        await tab.until(LIVE)

    async def test_a_try_without_a_client_key_says_what_is_missing(self, tab: Tab, here: Site) -> None:
        await tab.open(here.url)
        await self.enter(tab, "an-admin-key-of-some-length")
        await tab.until("document.getElementById('try-model').value")
        await tab.js("document.getElementById('try').requestSubmit()")
        await tab.until("!document.getElementById('try-go').disabled")

        assert "API key" in await tab.js("document.querySelector('#answer-on .text').textContent")


async def test_it_comes_back_when_the_server_does(tab: Tab, here: Site) -> None:
    await shown(tab, here)
    live = here.server.server.app.live.viewers
    for viewer in tuple(live._viewers):
        viewer.request.transport.abort()
    await tab.until("document.getElementById('connection').dataset.state === 'lost'")

    await tab.until(LIVE)
