"""Makes the pictures of the page that the documentation shows: `python -m tests.server.page_pictures FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trio

from tests.server.browser import browsing
from tests.server.page_server import asking, page_served

__all__ = ["main"]

BUSY = """
[cache]
max_entries = 5000

[[routes]]
name = "cheap"
chain = ["haiku", "local"]
strategy = "adaptive"

[[routes]]
name = "draft"
chain = ["local"]

[[models]]
name = "sonnet"
provider = "simulated"
model = "sonnet-large"
max_concurrency = 16
retry = { max_attempts = 2, base_delay = 0.02 }
circuit_breaker = { failure_threshold = 6, open_for = 600 }
price = { input = 3, output = 15 }
simulated = { first_token = 0.32, per_chunk = 0.012, script = [
  { fault = "ok", times = 12 }, { fault = "overloaded", times = 40 } ] }

[[models]]
name = "gpt"
provider = "simulated"
max_concurrency = 24
rate_limit = { requests_per_minute = 6000, tokens_per_minute = 400000 }
price = { input = 1.25, output = 10 }
simulated = { first_token = 0.21, per_chunk = 0.05, answer = "ANSWER", script = [
  { fault = "ok", times = 9 }, { fault = "error" }, { fault = "ok", times = 14 },
  { fault = "rate_limit", retry_after = 0.4 } ] }

[[models]]
name = "haiku"
provider = "simulated"
model = "haiku-fast"
price = { input = 1, output = 5 }
simulated = { first_token = 0.09, per_chunk = 0.03, answer = "ANSWER" }

[[models]]
name = "local"
provider = "simulated"
max_concurrency = 2
simulated = { first_token = 0.4, per_chunk = 0.08, answer = "ANSWER", script = [{ fault = "content_filter" }] }
"""

ANSWER = (
    "The primary answers 503 since 03:04: its circuit is open, and gpt takes the traffic. Two things to check: the "
    "provider's status page, and whether the retry budget still has room. Nobody has to do anything at once."
)


async def _ask(url: str, text: str, model: str) -> None:
    async with asking(url) as wire:
        await wire.chat(text, model, max_tokens=200)


async def _busy(url: str, nursery: trio.Nursery) -> None:
    """Ask so much that there is something to see."""
    await _ask(url, "A question that is refused", "draft")
    async with trio.open_nursery() as first:
        for number in range(46):
            first.start_soon(_ask, url, f"Question {number // 2}", "cheap" if number % 5 == 0 else "wizard")
            await trio.sleep(0.04)
    for number in range(11):
        nursery.start_soon(_ask, url, f"Late question {number}", ("wizard", "cheap", "draft")[number % 3])
    await trio.sleep(1.2)


async def main(folder: Path) -> None:
    """Store page-light.png, page-dark.png and page-phone.png in `folder`."""
    tables = BUSY.replace("ANSWER", ANSWER)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as given:
        place = Path(given)
        async with page_served(place, tables) as server, browsing(place) as tab, trio.open_nursery() as nursery:
            await tab.look(1360, 1560)
            await tab.go(server.url)
            await tab.until("document.querySelectorAll('.model').length === 4")
            await _busy(server.url, nursery)
            await tab.click("#prompt")
            await tab.write("Why is the primary down?")
            await tab.press("Enter", control=True)
            await tab.until("document.querySelector('#answer').textContent.length > 120")
            await tab.run(
                "[...document.querySelectorAll('#failures details')].find((e) => "
                "/overloaded/.test(e.textContent)).open = true; window.scrollTo(0, 0)"
            )
            await tab.picture(folder / "page-light.png")
            await tab.look(1360, 1560, scheme="dark")
            await tab.picture(folder / "page-dark.png")
            await tab.look(360, 780, phone=True)
            await tab.run("window.scrollTo(0, 0)")
            await tab.picture(folder / "page-phone.png")
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
