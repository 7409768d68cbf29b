"""An answer from Hishel's cache, with its httpx client. Hishel keeps answers to GET and HEAD alone, but for a POST
whose answer says how long it may be kept, which no provider's does. So a GET is sent, with the body of a chat
completion, and the body's digest as its key, which is what Hishel offers where an answer depends on more than the URL.
"""

from __future__ import annotations

import hashlib
import json

from _harness import FLAKY, Bench, importing, main

with importing():
    import sqlite3

    from hishel import SqliteStorage
    from hishel.httpx import CacheClient


def hit(bench: Bench) -> None:
    """Answers from the cache. Nothing is sent for them: every second one would be a 503."""
    url = f"{bench.upstream}/v1/chat/completions"
    asked = {"model": FLAKY, "messages": [{"role": "user", "content": "Why actors?"}]}

    def one() -> object:
        body = json.dumps(asked).encode()
        key = hashlib.sha256(body).hexdigest()
        reply = client.request("GET", url, content=body, extensions={"caching": {"key": key}})
        reply.raise_for_status()
        return reply.json()["choices"][0]["message"]["content"]

    # Its own client, which is not of asyncio, is the faster of the two; and so is a database in memory.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    with CacheClient(storage=SqliteStorage(connection=connection)) as client:
        bench.flaky_next(200)
        bench.same(one())
        bench.blocking(one)
    bench.flaky_is(503)


if __name__ == "__main__":
    main({"hit": hit}, "hishel", "httpx")
