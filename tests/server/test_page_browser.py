"""The live page in a browser: what somebody sees who watches, asks, and loses the server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.server.browser import Tab, browsing, needs_chromium
from tests.server.live import Live
from tests.server.page_server import asking, page_served

MODELS: Final = """
[[models]]
name = "first"
provider = "simulated"
retry = { max_attempts = 1 }
circuit_breaker = { failure_threshold = 3, open_for = 1.5, success_threshold = 1 }
simulated = { first_token = 0, per_chunk = 0, script = [{ fault = "overloaded", times = 3 }] }

[[models]]
name = "second"
provider = "simulated"
simulated = { first_token = 0.01, per_chunk = 0.01, answer = "<b>All</b> is well, says the backup." }
"""
SLOW: Final = """
[[models]]
name = "slow"
provider = "simulated"
simulated = { first_token = 0, per_chunk = 0.05, words_per_chunk = 1, answer = "LONG" }
""".replace("LONG", "word " * 2000)

CIRCUIT: Final = "document.querySelector('[aria-label=\"Model first\"] .circuit').textContent"
FOCUSED: Final = "(document.activeElement.id || document.activeElement.textContent.trim())"

UNLABELLED: Final = """
[...document.querySelectorAll("input, select, textarea, button, a, summary, section, [role=img]")].filter((e) => {
  if (e.closest("[hidden]")) return false;
  const by = (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent);
  const name = e.getAttribute("aria-label") || by.join("") || [...(e.labels || [])].map((l) => l.textContent).join("");
  return !(name || (["BUTTON", "A", "SUMMARY"].includes(e.tagName) && e.textContent)).trim();
}).map((e) => e.outerHTML)
"""

CONTRAST: Final = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const found = parts(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.disabled) continue;
    const [one, other] = [light(parts(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


def only_from(server: Live, tab: Tab) -> bool:
    """Return whether the page has asked this server for something, and nobody else."""
    return bool(tab.requests) and all(url.startswith(f"{server.url}/") for url in tab.requests)


async def opened(server: Live, tab: Tab) -> None:
    """Open the page, and wait until it shows something."""
    await tab.go(server.url)
    await tab.until("document.querySelectorAll('.model').length > 0")


@needs_chromium
async def test_the_page_shows_a_circuit_open_and_close_and_streams_an_answer(tmp_path: Path) -> None:
    """With the failures' attempts, without a complaint in the console, and without a request to anybody else."""
    async with page_served(tmp_path, MODELS) as server, browsing(tmp_path) as tab, asking(server.url) as wire:
        await opened(server, tab)
        assert await tab.run(CIRCUIT) == "circuit closed"
        assert await tab.text("#status") == "all is well"
        for _ in range(3):
            assert (await wire.chat()).status == 200
        await tab.until(f"{CIRCUIT} === 'circuit open'")
        await tab.until("/first: circuit open/.test(document.querySelector('#troubles').textContent)")
        assert "first is open" in await tab.text("#told")
        await tab.until("document.querySelectorAll('#failures > li').length === 3")
        assert "overloaded → answered by second" in await tab.text("#failures li")

        await tab.run("document.querySelector('#failures summary').focus()")
        await tab.press("Enter")
        assert await tab.texts("#failures li:first-child tbody tr th") == ["first", "second"]

        await tab.until("!/probed in/.test(document.querySelector('#troubles').textContent)")
        await wire.chat()
        await tab.until(f"{CIRCUIT} === 'circuit closed'")
        assert "first is closed" in await tab.text("#told")
        assert await tab.run("document.querySelector('#failures details').open") is True

        await tab.run("document.querySelector('#whom').value = 'second'")
        await tab.click("#prompt")
        await tab.write("Is all well?")
        await tab.press("Enter", control=True)
        await tab.until("/in all/.test(document.querySelector('#answer-facts').textContent)")
        assert await tab.text("#answer") == "<b>All</b> is well, says the backup."
        facts = await tab.text("#answer-facts")
        assert facts.startswith("answered by second · 1 attempt · first word after ")
        assert "tokens in" in facts
        assert (only_from(server, tab), tab.complaints) == (True, [])


@needs_chromium
async def test_the_page_can_be_used_by_keyboard_and_read_by_everybody(tmp_path: Path) -> None:
    """One first heading, labels, contrast in both schemes, no scrolling sideways on a phone, and a stop button."""
    async with page_served(tmp_path, SLOW) as server, browsing(tmp_path) as tab:
        await opened(server, tab)
        assert await tab.run("document.querySelectorAll('h1').length") == 1
        assert await tab.run("document.documentElement.lang") == "en"
        assert await tab.run(UNLABELLED) == []
        for scheme in ("light", "dark"):
            await tab.look(360, 740, scheme=scheme, phone=True)
            assert await tab.run(CONTRAST) == []
            assert await tab.run("document.documentElement.scrollWidth") == 360
        await tab.look(1280, 900)

        order = []
        for _ in range(14):
            await tab.press("Tab")
            order.append(await tab.run(FOCUSED))
        assert order[:8] == [
            "Skip to the prompt", "Models", "Failures", "Actors", "Ask", "Routes", "unfold", "fold",
        ]  # fmt: skip
        assert order[-3:] == ["whom", "prompt", "send"]

        await tab.press("Tab", shift=True)
        await tab.write("Tell me a lot.")
        await tab.press("Tab")
        await tab.press("Enter")
        await tab.until("document.querySelector('#answer').textContent.length > 20")
        assert await tab.run(FOCUSED) == "stop"
        await tab.until("document.querySelector('#progress').textContent.includes('slow answers')")
        await tab.press("Enter")
        await tab.until("/stopped after/.test(document.querySelector('#answer-facts').textContent)")
        assert await tab.run(FOCUSED) == "prompt"
        await tab.until("document.querySelector('#progress').textContent === ''")
        assert tab.complaints == []


@needs_chromium
async def test_the_page_asks_for_the_key_of_an_admin(tmp_path: Path) -> None:
    """It says what is wrong with another one, keeps the right one in its tab alone, and forgets it when told to."""
    keys = {"alice": True, "bob": False}
    async with page_served(tmp_path, MODELS, admins=keys) as server, browsing(tmp_path) as tab:
        await tab.go(server.url)
        await tab.until("!document.querySelector('#sign-in').hidden")
        assert await tab.run(FOCUSED) == "key"
        for wrong, said in (("wz_nobody", "not one of this server's"), ("wz_bob", "no admin's")):
            await tab.write(wrong)
            await tab.press("Enter")
            await tab.until(f"document.querySelector('#key-wrong').textContent.includes({said!r})".replace("\\'", "'"))
            assert await tab.run("document.querySelector('#page').hidden") is True
        await tab.write("wz_alice")
        await tab.press("Enter")
        await tab.until("document.querySelectorAll('.model').length === 2")
        kept = "JSON.stringify([Object.values(sessionStorage), Object.values(localStorage), document.cookie])"
        assert await tab.run(kept) == '[["wz_alice"],[],""]'
        assert not any("wz_" in url for url in tab.requests)

        await tab.click("#prompt")
        await tab.write("Is all well?")
        await tab.press("Enter", control=True)
        await tab.until("/in all/.test(document.querySelector('#answer-facts').textContent)")
        await tab.click("#forget")
        await tab.until("!document.querySelector('#sign-in').hidden && sessionStorage.length === 0")
        assert all("401" in said or "403" in said for said in tab.complaints)


@needs_chromium
async def test_the_page_says_that_the_server_is_gone_and_finds_it_again(tmp_path: Path) -> None:
    """It keeps what it knew, and tries again by itself."""
    (tmp_path / "again").mkdir()
    async with browsing(tmp_path) as tab:
        async with page_served(tmp_path, SLOW) as server:
            await opened(server, tab)
            port = server.url.rpartition(":")[2]
        await tab.until("/gone|stopping/.test(document.querySelector('#status').textContent)")
        assert await tab.run("document.querySelector('#page').classList.contains('old')") is True
        assert await tab.run("document.querySelector('#again').hidden") is False
        await tab.until("document.querySelector('#status').textContent === 'the server is gone'")
        async with page_served(tmp_path / "again", SLOW, port=int(port)) as server:
            await tab.until("document.querySelector('#status').textContent === 'all is well'")
            assert await tab.run("document.querySelector('#page').classList.contains('old')") is False
            assert all("ERR_CONNECTION_REFUSED" in said for said in tab.complaints)
