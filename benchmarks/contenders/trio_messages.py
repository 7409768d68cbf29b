"""A request and its reply over Trio's memory channels: what actors on Trio are made of when no library is asked. The
request brings the channel for its reply, as Trio's documentation does it; the channel is used once, and closed.
"""

from __future__ import annotations

from _harness import Bench, importing, main

with importing():
    import trio

Request = tuple[int, "trio.MemorySendChannel[int]"]


async def wall(inbox: trio.MemoryReceiveChannel[Request]) -> None:
    """Answer every request with its number."""
    async with inbox:
        async for number, reply in inbox:
            reply.send_nowait(number)


async def run(bench: Bench, *, crowd: bool) -> None:
    """Time requests to one task."""
    # Room for every caller's request, so that none of them has to wait for it.
    outbox, inbox = trio.open_memory_channel[Request](bench.callers)

    async def asked(number: int) -> int:
        send, receive = trio.open_memory_channel[int](1)
        with send, receive:
            await outbox.send((number, send))
            return await receive.receive()

    async def one() -> None:
        await asked(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wall, inbox)
        async with outbox:
            bench.same(await asked(7), 7)
            await (bench.trio_crowd(one, shared=True) if crowd else bench.sequential(one))


def ask(bench: Bench) -> None:
    """One after another."""
    trio.run(lambda: run(bench, crowd=False))


def ask64(bench: Bench) -> None:
    """Many at once."""
    trio.run(lambda: run(bench, crowd=True))


if __name__ == "__main__":
    main({"ask": ask, "ask64": ask64}, "trio")
