"""A rate limiter and a circuit breaker round an HTTP API that has nothing to do with language models.

    python docs/examples/guard_http_api.py [URL]

Without a URL it starts a small server of its own, which allows a burst of requests, answers 429 to one, and then is
down for a while.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat

import httpx
import trio

from wizard_actors.breaker_core import BreakerState
from wizard_actors.breaker_handle import Breaker
from wizard_actors.circuit_breaker import CircuitBreaker
from wizard_actors.config import BreakerConfig, RateLimitConfig
from wizard_actors.errors import CircuitOpenError, RateLimitError
from wizard_actors.gcra import LimiterState
from wizard_actors.limiter_handle import Limiter
from wizard_actors.rate_limit import RateLimiter
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor

LIMITS = RateLimitConfig(requests_per_minute=600, burst=5)
CIRCUIT = BreakerConfig(failure_threshold=3, window=60, open_for=1, success_threshold=1)
GUARDS = GroupSpec(
    "stock-api",
    [
        ChildSpec("limiter", RateLimiter.factory("stock", LIMITS)),
        ChildSpec("breaker", CircuitBreaker.factory("stock", CIRCUIT)),
    ],
)


class StockAPI:
    """The API as the rest of the program sees it; one for all tasks."""

    def __init__(self, http: httpx.AsyncClient, guards: Supervisor) -> None:
        self._http = http
        self._limiter = Limiter(guards.ref("limiter", LimiterState))
        self._breaker = Breaker(guards.ref("breaker", BreakerState))

    async def get(self, path: str, *, attempts: int = 3) -> httpx.Response:
        """Return the answer. A 429 is waited out; a failure of the API's is the caller's to see.

        Raises `CircuitOpenError` and `RateLimitError` where nothing was sent, and what httpx raises.
        """
        for _ in range(attempts - 1):
            response = await self._once(path)
            if response.status_code != 429:
                return response
        return (await self._once(path)).raise_for_status()

    async def _once(self, path: str) -> httpx.Response:
        # The limiter first: a permit that is taken before a wait may be from before the outage once the wait is over.
        async with self._limiter.request(max_wait=10) as leave:
            try:
                async with self._breaker.permit(failures=(httpx.TransportError, httpx.HTTPStatusError)) as permit:
                    response = await self._http.get(path)
                    if response.status_code == 429:
                        leave.limited(retry_after(response))  # everybody waits, not only this task
                        permit.ignore()  # it is there, but has said nothing of how it is
                    elif response.is_server_error:
                        response.raise_for_status()
                    return response
            except CircuitOpenError:
                leave.unsent()  # costs nothing of the rate
                raise


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After; None for a date, or for none."""
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None


async def main(url: str) -> None:
    """Ask for more than the API gives."""
    async with Supervisor(GUARDS) as guards, httpx.AsyncClient(base_url=url, timeout=2) as http:
        api = StockAPI(http, guards)
        for number in range(1, 10):
            asked = trio.current_time()
            try:
                response = await api.get("/lamps")
                waited = trio.current_time() - asked > 0.8
                print(number, response.status_code, response.text, "after a wait" if waited else "at once")
            except CircuitOpenError as error:
                print(number, "not asked, the circuit is open")
                await trio.sleep(error.retry_after)  # a service would answer with what it knew last
            except RateLimitError as error:
                print(number, "not asked:", error)
            except httpx.HTTPError as error:
                print(number, "failed:", type(error).__name__)


# -- what is asked, where there is no URL ------------------------------------------------------------------------------


@contextmanager
def server(*statuses: int) -> Iterator[str]:
    """Run a server that gives these answers one after the other, then 200 for ever; return its URL."""
    script = chain(statuses, repeat(200))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = next(script)
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(b"7 in stock" if status == 200 else b"no")

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        with server(200, 200, 429, 200, 500, 503, 500) as local_url:
            trio.run(main, local_url)
