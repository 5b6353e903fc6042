"""A headless Chromium, driven by its own protocol (DevTools) over one WebSocket; no other package is needed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_S = 30.0
WATCH = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
globalThis.struck = [];
globalThis.alert = (what) => struck.push(what);
globalThis.paints = {};
new PerformanceObserver((list) => { for (const one of list.getEntries()) paints[one.name] = one.startTime; })
  .observe({ type: "paint", buffered: true });
"""
KEYS = {
    "Tab": ("Tab", 9, None),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, None),
    "ArrowLeft": ("ArrowLeft", 37, None),
    "ArrowUp": ("ArrowUp", 38, None),
    "ArrowRight": ("ArrowRight", 39, None),
    "ArrowDown": ("ArrowDown", 40, None),
    "End": ("End", 35, None),
    " ": ("Space", 32, " "),
}


def chromium() -> str | None:
    """Where it is installed; `None` if it is not."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class PageError(Exception):
    """The page, or the browser, said no."""


@dataclass
class Tab:
    """One page, and what it has done."""

    socket: aiohttp.ClientWebSocketResponse
    session: str
    waiting: dict[int, asyncio.Future[Any]]
    numbers: itertools.count[int]
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def call(self, method: str, **params: Any) -> Any:
        number = next(self.numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        await self.socket.send_json({"id": number, "method": method, "params": params, "sessionId": self.session})
        async with asyncio.timeout(START_S):
            return await answer

    def saw(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def open(self, url: str) -> None:
        """Go there and wait until its modules have run."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def js(self, expression: str) -> Any:
        """The value of an expression; a promise is waited for."""
        got = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise PageError(got["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        return got["result"].get("value")

    async def until(self, expression: str, *, seconds: float = 15) -> Any:
        """Wait for something to be true of the page."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        if value := await self.js(f"((it) => it instanceof Node || it)({expression})"):
                            return value
                    except PageError:
                        pass  # between two documents
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it never became true: {expression}\n{self.errors}") from None

    async def press(self, key: str, *, shift: bool = False) -> None:
        code, number, text = KEYS[key]
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def scheme(self, name: str, *, still: bool = False) -> None:
        """`light` or `dark`, as the system would have it; `still` for somebody who wants no motion."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if still else ""})
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def size(self, width: int, height: int, scale: float = 1) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def tree(self) -> list[dict[str, Any]]:
        """The accessibility tree: what a screen reader is told."""
        nodes: list[dict[str, Any]] = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return [node for node in nodes if not node.get("ignored")]


class Browser:
    """A running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._tabs: dict[str, Tab] = {}

    async def listen(self) -> None:
        async for message in self._socket:
            data = message.json()
            if "id" in data:
                answer = self._waiting.pop(data["id"], None)
                if answer is None or answer.done():
                    continue
                if "error" in data:
                    answer.set_exception(PageError(data["error"]["message"]))
                else:
                    answer.set_result(data["result"])
            elif (tab := self._tabs.get(data.get("sessionId", ""))) is not None:
                tab.saw(data["method"], data["params"])

    async def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await answer

    @asynccontextmanager
    async def tab(self, width: int = 1440, height: int = 1100) -> AsyncIterator[Tab]:
        """A new page in a context of its own: no storage is shared with another."""
        context = (await self._call("Target.createBrowserContext"))["browserContextId"]
        target = await self._call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self._socket, attached["sessionId"], self._waiting, self._numbers)
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            await tab.call(f"{domain}.enable")
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        await tab.size(width, height)
        try:
            yield tab
        finally:
            await self._call("Target.disposeBrowserContext", browserContextId=context)
            del self._tabs[tab.session]


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Browser]:
    """Start it with an empty profile, and end it."""
    with tempfile.TemporaryDirectory(prefix="predawn-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            place = await _place(Path(profile), process)
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(place, max_msg_size=1 << 28) as socket:
                    made = Browser(socket)
                    listening = asyncio.get_running_loop().create_task(made.listen())
                    try:
                        yield made
                    finally:
                        listening.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def _place(profile: Path, process: asyncio.subprocess.Process) -> str:
    """Where it listens, which it writes down when it does."""
    told = profile / "DevToolsActivePort"
    async with asyncio.timeout(START_S):
        while True:
            if process.returncode is not None:
                raise PageError(f"Chromium ended with {process.returncode}")
            lines = told.read_text().splitlines() if told.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(0.05)
