"""The raw client that loads a library's own HTTP server, the same for every one: connections that stay open, each with
one request at a time, and as little done to an answer as tells that it is whole.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from _harness import Bench

__all__ = ["free_port", "load", "served"]

START = 120.0
"""Seconds that a server may take until it is ready."""


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def served(command: Sequence[str], port: int, health: str, env: dict[str, str]) -> Iterator[int]:
    """Run a server for the length of a block, from when its path `health` answers 200; its process id is given. Raises
    `RuntimeError`, with the end of what it said, where it is not ready in time.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=env)  # noqa: S603 - a server that is to be loaded
        try:
            if not _ready(process, port, health):
                said.seek(0)
                raise RuntimeError(f"the server did not start: {said.read()[-2000:].decode(errors='replace')}")
            yield process.pid
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], port: int, health: str) -> bool:
    until = time.monotonic() + START
    while process.poll() is None and time.monotonic() < until:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", health)
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass  # not yet
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def load(bench: Bench, port: int, model: str) -> None:
    """Time chat completions of a server that listens on `port`, over `bench.callers` connections."""
    asyncio.run(_load(bench, port, model))


async def _load(bench: Bench, port: int, model: str) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Why actors?"}]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(bench.callers)]
    idle = list(connections)

    async def one() -> bytes:
        reader, writer = connection = idle.pop()
        writer.write(request)
        answer = await _answer(reader)
        idle.append(connection)
        return answer

    try:
        bench.same(json.loads(await one())["choices"][0]["message"]["content"])
        await bench.asyncio_crowd(one)
    finally:
        for _, writer in connections:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Return the body of an answer. Raises `ValueError` where it is no 200 of a stated length."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, stated, rest = head.partition(b"\r\ncontent-length:")
    if not head.startswith(b"http/1.1 200 ") or not stated:
        raise ValueError(f"the server answered {head.decode('latin-1')!r}")
    return await reader.readexactly(int(rest.partition(b"\r\n")[0]))
