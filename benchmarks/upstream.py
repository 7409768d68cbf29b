"""The mock upstream: a cheap server that answers as OpenAI's Chat Completions would, for every client alike.

    python -m benchmarks.upstream [--port 0] [--delay 0] [--chunks 50] [--gap 0] [--size 200]

It prints its address, `http://127.0.0.1:PORT`, and serves until its standard input closes. Every answer is `--size`
characters long, given `--delay` seconds after it was asked for. A streamed one comes in `--chunks` deltas, then the
finish, the usage (asked for or not) and `[DONE]`: in one write, or, with a `--gap` of so many seconds, a chunk a write.

A model whose id begins with "down" is always answered 503. One whose id begins with "flaky" is answered 503 and 200 in
turn, whichever connection asks, and without a Retry-After. The bytes of all answers are made once, so that what is
measured is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

import httptools
import msgspec
from attrs import frozen

__all__ = ["Answers", "running"]

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = "mock-1"
"""The model that every answer names."""
STOP: Final = 5.0
"""Seconds that it may take to end."""


# -- what it says ------------------------------------------------------------------------------------


class Asked(msgspec.Struct):
    """What of a request decides which answer it gets."""

    model: str = ""
    stream: bool | None = None


@frozen
class Answers:
    """The bytes of every answer: heads and bodies, ready to send. `pieces` are those of a stream, one a chunk."""

    whole: bytes
    head: bytes
    pieces: tuple[bytes, ...]
    refused: bytes
    unknown: bytes

    @classmethod
    def made(cls, *, chunks: int = 50, size: int = 200) -> Answers:
        """Make them: an answer of `size` characters, in `chunks` deltas where it is streamed."""
        text = ("All is well, says the model. " * (size // 29 + 1))[:size]
        return cls(
            whole=_whole("200 OK", _completion(text)),
            head=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            pieces=tuple(_piece(event) for event in _events(text, chunks)),
            refused=_whole("503 Service Unavailable", _error("The model is overloaded.", "server_error")),
            unknown=_whole("404 Not Found", _error("There is nothing at this path.", "invalid_request_error")),
        )


def _completion(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**_common("chat.completion"), "choices": [choice], "usage": _usage(text)}


def _events(text: str, chunks: int) -> Iterator[bytes]:
    """Yield the events of a stream: the role, the deltas, the finish, the usage, the end."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[len(text) * n // chunks : len(text) * (n + 1) // chunks]} for n in range(chunks)]
    common = _common("chat.completion.chunk")
    for delta, finish in [*((delta, None) for delta in deltas), ({}, "stop")]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield json.dumps({**common, "choices": [choice], "usage": None}).encode()
    yield json.dumps({**common, "choices": [], "usage": _usage(text)}).encode()
    yield b"[DONE]"


def _common(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-mock", "object": kind, "created": 1_750_000_000, "model": MODEL}


def _usage(text: str) -> dict[str, int]:
    prompt, completion = 12, max(len(text) // 4, 1)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(message: str, kind: str) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _whole(status: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def _piece(event: bytes) -> bytes:
    line = b"data: " + event + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


# -- how it serves -----------------------------------------------------------------------------------


LAST: Final = b"0\r\n\r\n"
"""What ends a chunked body."""


class Upstream:
    """What all connections share: the answers, and whose turn it is among the flaky ones' refusals."""

    def __init__(self, answers: Answers, *, delay: float = 0.0, gap: float = 0.0) -> None:
        self.answers, self.delay, self.gap = answers, delay, gap
        self.streamed: Final = answers.head + b"".join(answers.pieces) + LAST
        self._refuse = False

    def chosen(self, path: bytes, body: bytes) -> bytes | None:
        """Return the bytes of the answer to a request; None where a stream comes in pieces."""
        if not path.partition(b"?")[0].endswith(b"/chat/completions"):
            return self.answers.unknown
        asked = msgspec.json.decode(body, type=Asked)
        if asked.model.startswith("down") or (asked.model.startswith("flaky") and self._refused()):
            return self.answers.refused
        if not asked.stream:
            return self.answers.whole
        return None if self.gap else self.streamed

    def _refused(self) -> bool:
        self._refuse = not self._refuse
        return self._refuse


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered as soon as it is whole, or `delay` later."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._path, self._body = b"", bytearray()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._slow: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is being answered: nobody reads it."""
        for task in self._slow:
            task.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Parse; hang up on what is no HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def on_url(self, url: bytes) -> None:
        """Note where a request goes."""
        self._path, self._body = self._path + url, bytearray()

    def on_body(self, body: bytes) -> None:
        """Note what it says."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer it."""
        upstream, path, self._path = self._upstream, self._path, b""
        answer = upstream.chosen(path, bytes(self._body))
        keep = self._parser.should_keep_alive()
        if answer is not None and not upstream.delay:
            self._write(answer)
            if not keep and self._transport is not None:
                self._transport.close()
            return
        task = asyncio.get_running_loop().create_task(self._in_time(answer, keep=keep))
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    async def _in_time(self, answer: bytes | None, *, keep: bool) -> None:
        await asyncio.sleep(self._upstream.delay)
        if answer is not None:
            self._write(answer)
        elif not self._upstream.gap:
            self._write(self._upstream.streamed)
        else:
            self._write(self._upstream.answers.head)
            for piece in self._upstream.answers.pieces:
                self._write(piece)
                await asyncio.sleep(self._upstream.gap)
            self._write(LAST)
        if not keep and self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(upstream: Upstream, port: int) -> None:
    """Serve on loopback, print the address, and return when standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # In a thread: standard input may be what no event loop can watch, as a file.
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


@contextmanager
def running(*, delay: float = 0.0, chunks: int = 50, gap: float = 0.0, size: int = 200) -> Iterator[str]:
    """Run it in a process of its own for the length of a block; yields its address, without `/v1`.

    `delay` and `gap` are in seconds. Raises `RuntimeError` where it does not start.
    """
    options = ["--delay", delay, "--chunks", chunks, "--gap", gap, "--size", size]
    command = [sys.executable, "-m", "benchmarks.upstream", *map(str, options)]
    # In a session of its own, so that Ctrl-C ends it when its readers have ended, and not before.
    process = subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            address = process.stdout.readline().decode().strip()
            if not address:
                raise RuntimeError(f"the upstream did not start: it ended with {process.wait(STOP)}")
            yield address
        finally:
            assert process.stdin is not None  # noqa: S101 - for the type checker
            process.stdin.close()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, metavar="S")
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--gap", type=float, default=0.0, metavar="S")
    parser.add_argument("--size", type=int, default=200)
    given = parser.parse_args()
    upstream = Upstream(Answers.made(chunks=given.chunks, size=given.size), delay=given.delay, gap=given.gap)
    if find_spec("uvloop") is not None:
        import uvloop

        uvloop.run(serve(upstream, given.port))
    else:
        asyncio.run(serve(upstream, given.port))


if __name__ == "__main__":
    main()
