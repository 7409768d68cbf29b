"""Would a pool of read buffers make streams cheaper?

    python -m benchmarks.buffer_pool

One streamed chunk of an answer is read from a socket, and turned into events: from new bytes, as the client does it,
and from a buffer of a pool, of which the parser needs bytes too. Each time is the best of the rounds, which are
interleaved: what else the machine does makes a round longer, never shorter. "held" is the most memory that 1,000
reads in a row had taken at any one time, the pool's own buffer included.
"""

from __future__ import annotations

import socket
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Final

from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.refusals import Head

ROUNDS: Final = 15
CHUNKS: Final = 20_000
READ: Final = 65_536
"""Bytes that one read may return, as Trio's and httpcore's reads do."""
CHUNK: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)

WAYS: Final = {
    "system_calls": "send and read a single byte",
    "read_new": "read, new bytes",
    "read_pooled": "read, pooled buffer",
    "parse_new": "read and parse, new bytes",
    "parse_pooled": "read and parse, pooled buffer",
}


class Pool:
    """Buffers that are taken and put back: the cheapest pool there is."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """Return a buffer, a new one where none is free."""
        return self._free.pop() if self._free else bytearray(READ)

    def put(self, buffer: bytearray) -> None:
        """Take a buffer back."""
        self._free.append(buffer)


class Reader:
    """Reads chunks from a socket, each in the ways that are compared."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._pool = Pool()
        self._parser = self._new_parser()

    def restart(self) -> None:
        """Begin another answer."""
        self._parser = self._new_parser()

    def system_calls(self) -> None:
        """Send and read a single byte."""
        self._far.send(b"x")
        self._near.recv(1)

    def read_new(self) -> None:
        """Read into new bytes."""
        self._far.send(CHUNK)
        self._near.recv(READ)

    def read_pooled(self) -> None:
        """Read into a buffer from the pool, and put it back."""
        self._far.send(CHUNK)
        buffer = self._pool.take()
        self._near.recv_into(buffer)
        self._pool.put(buffer)

    def parse_new(self) -> None:
        """Read into new bytes, and parse them."""
        self._far.send(CHUNK)
        self._parser.feed(self._near.recv(READ))

    def parse_pooled(self) -> None:
        """Read into a buffer from the pool, and parse the part of it that holds the chunk."""
        self._far.send(CHUNK)
        buffer = self._pool.take()
        size = self._near.recv_into(buffer)
        self._parser.feed(bytes(memoryview(buffer)[:size]))
        self._pool.put(buffer)

    def close(self) -> None:
        """Close the sockets."""
        self._near.close()
        self._far.close()

    @staticmethod
    def _new_parser() -> AnswerParser:
        head = Head(model="m", status=200)
        return AnswerParser(head, ChunkReader(head), content_type="text/event-stream")


def seconds(work: Callable[[], None]) -> float:
    """Return how long one call of `work` takes."""
    began = time.perf_counter()
    for _ in range(CHUNKS):
        work()
    return (time.perf_counter() - began) / CHUNKS


def held(way: str) -> int:
    """Return how many bytes a thousand chunks take at any one time."""
    tracemalloc.start()
    reader = Reader()
    work = getattr(reader, way)
    for _ in range(1_000):
        work()
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    return highest


def main() -> None:
    """Print the figures."""
    reader = Reader()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        reader.restart()
        for way in WAYS:
            times[way].append(seconds(getattr(reader, way)))
    reader.close()
    sys.stdout.write(f"one chunk of {len(CHUNK)} bytes, best of {ROUNDS} rounds of {CHUNKS:,}\n")
    for way, name in WAYS.items():
        sys.stdout.write(f"  {name:<30} {min(times[way]) * 1e6:5.2f} us   held {held(way) / 1024:4.0f} KiB\n")


if __name__ == "__main__":
    main()
