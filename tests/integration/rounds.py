"""Rounds of concurrent calls through one client over real sockets, in a process of their own: memory, tasks, answers.

python tests/integration/rounds.py ROUNDS CALLS     prints one line a round, and what was left in the end
"""

import asyncio
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from wizard_actors import ResilientClient, WizardConfig

EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"four words of answer"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    b"data: [DONE]\n\n",
)
BODY = b"".join(EVENTS)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(BODY)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of one connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(HEAD + BODY)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def upstream(report: Connection) -> None:
    """Serve on a free port of the loopback until the process is ended."""

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
        report.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def resident() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


async def run(port: int, rounds: int, calls: int) -> None:
    """Run the rounds through one client."""
    config = WizardConfig.from_toml(
        f"""
        [[models]]
        name = "only"
        provider = "openai"
        base_url = "http://127.0.0.1:{port}/v1"
        """,
        env={},
    )
    before = trio.lowlevel.current_statistics().tasks_living
    async with ResilientClient.open(config) as client:
        for number in range(1, rounds + 1):
            texts: list[str] = []

            async def call(texts: list[str], prompt: str) -> None:
                texts.append((await client.generate(prompt)).text)

            async with trio.open_nursery() as nursery:
                for index in range(calls):
                    nursery.start_soon(call, texts, f"question {number}.{index}")
            good = texts.count("four words of answer")
            say(f"round {number}: answered {good} of {calls}, rss {resident():.1f} MB")
    say(f"tasks left {trio.lowlevel.current_statistics().tasks_living - before}")


def main() -> None:
    """Start the upstream, run the rounds, end the upstream."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=upstream, args=(sender,), daemon=True)
    process.start()
    try:
        port = receiver.recv()
        rounds, calls = int(sys.argv[1]), int(sys.argv[2])
        trio.run(run, port, rounds, calls)
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
