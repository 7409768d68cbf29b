"""Headless Chromium, driven by its DevTools protocol: a page as somebody sees it who clicks and types."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

__all__ = ["Tab", "browsing", "chromium", "needs_chromium"]

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
LISTENS: Final = b"DevTools listening on "

LARGEST: Final = 32 * 1024 * 1024
"""Bytes of a message: a picture of a page."""

UNTIL: Final = """
new Promise((resolve) => {
  const holds = () => { try { return Boolean(%s); } catch { return false; } };
  if (holds()) return resolve(true);
  const look = () => { if (holds()) { observer.disconnect(); resolve(true); } };
  const observer = new MutationObserver(look);
  observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  document.addEventListener("focusin", look);
})
"""


def chromium() -> str | None:
    """Return the program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    chromium() is None and os.environ.get("CI") != "true",
    reason="needs Chromium (`apt-get install chromium`); where CI=true it may not be missing",
)
"""For tests that drive a browser: without one they are left out, but fail in CI."""


@define(eq=False)
class Tab:
    """One page in a browser: what it asked the network for, and what it complained of."""

    socket: WebSocketConnection
    requests: list[str] = field(factory=list)
    complaints: list[str] = field(factory=list)
    _session: str | None = None
    _numbers: Iterator[int] = field(factory=itertools.count)
    _waiting: dict[int, trio.MemorySendChannel[Mapping[str, Any]]] = field(factory=dict)

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self.socket.get_message())
                if "id" in message:
                    self._waiting.pop(message["id"]).send_nowait(message)
                else:
                    self._noted(message["method"], message["params"])

    def _noted(self, method: str, params: Mapping[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str([each.get("value", each) for each in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def call(self, method: str, **params: object) -> Mapping[str, Any]:
        """Ask the browser for something, and return what it says."""
        number = next(self._numbers)
        sender, answers = trio.open_memory_channel[Mapping[str, Any]](1)
        self._waiting[number] = sender
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self.socket.send_message(json.dumps(message))
        with trio.fail_after(20), answers:
            answer = await answers.receive()
        assert "error" not in answer, (method, answer)
        result: Mapping[str, Any] = answer["result"]
        return result

    async def open(self) -> None:
        """Make a page of one's own, and watch it."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def go(self, url: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return what an expression in the page comes to; a promise is waited for."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, (script, said["exceptionDetails"])
        return said["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression in the page holds, for some seconds at most."""
        with trio.move_on_after(15):
            await self.run(UNTIL % condition)
            return
        page = await self.run("document.body.innerText")
        raise AssertionError(f"{condition} never held; the page:\n{page}\n{self.complaints}")

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    async def texts(self, selector: str) -> list[str]:
        """Return the texts of all such elements."""
        return list(await self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"))

    async def click(self, selector: str) -> None:
        """Click on an element, where it is."""
        where = f"document.querySelector({json.dumps(selector)})"
        x, y = await self.run(
            f"(() => {{ {where}.scrollIntoView({{block: 'center', behavior: 'instant'}}); "
            f"const r = {where}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def write(self, text: str) -> None:
        """Type into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, control: bool = False, shift: bool = False) -> None:
        """Press a key: "Tab", "Enter" or " "."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        held = {"modifiers": 2 * control + 8 * shift, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r" if key == "Enter" else key} if key != "Tab" and not control else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **held, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **held)

    async def look(self, width: int, height: int, *, scheme: str = "light", phone: bool = False) -> None:
        """Have a screen of such a size, in CSS pixels, and prefer a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self, file: Path, *, whole: bool = False) -> None:
        """Store what is seen, or the `whole` page, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await trio.Path(file).write_bytes(base64.b64decode(shot["data"]))


async def _address(process: trio.Process) -> str:
    said = b""
    assert process.stderr is not None
    with trio.fail_after(30):
        while LISTENS not in said or b"\n" not in said.partition(LISTENS)[2]:
            more = await process.stderr.receive_some()
            assert more, f"Chromium has ended: {said.decode(errors='replace')}"
            said += more
    return said.partition(LISTENS)[2].split()[0].decode()


async def _read_on(process: trio.Process) -> None:
    """Take what it says, so that it never waits for somebody to do so."""
    assert process.stderr is not None
    async for _ in process.stderr:
        pass


@asynccontextmanager
async def browsing(folder: Path, flags: Sequence[str] = ()) -> AsyncIterator[Tab]:
    """Open a browser with a profile of its own in `folder`, for the length of a block."""
    program = chromium()
    assert program is not None, "there is no Chromium here: apt-get install chromium"
    process = await trio.lowlevel.open_process(
        [program, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        address = await _address(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_on, process)
            async with open_websocket_url(address, max_message_size=LARGEST) as socket:
                tab = Tab(socket)
                nursery.start_soon(tab.listen)
                await tab.open()
                yield tab
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if process.stderr is not None:
                await process.stderr.aclose()
