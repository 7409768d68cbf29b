"""A request and its reply over AnyIO's memory object streams, on asyncio, which is where most of its users are. The
request brings the stream for its reply, which is used once, and closed.
"""

from __future__ import annotations

from _harness import Bench, importing, main

with importing():
    import anyio
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Request = tuple[int, MemoryObjectSendStream[int]]


async def wall(inbox: MemoryObjectReceiveStream[Request]) -> None:
    """Answer every request with its number."""
    async with inbox:
        async for number, reply in inbox:
            reply.send_nowait(number)


async def run(bench: Bench, crowd: bool) -> None:
    """Time requests to one task."""
    # Room for every caller's request, so that none of them has to wait for it.
    outbox, inbox = anyio.create_memory_object_stream[Request](bench.callers)

    async def asked(number: int) -> int:
        send, receive = anyio.create_memory_object_stream[int](1)
        with send, receive:
            await outbox.send((number, send))
            return await receive.receive()

    async def one() -> None:
        await asked(1)

    async with anyio.create_task_group() as group:
        group.start_soon(wall, inbox)
        async with outbox:
            bench.same(await asked(7), 7)
            await (bench.asyncio_crowd(one, shared=True) if crowd else bench.sequential(one))


def ask(bench: Bench) -> None:
    """One after another."""
    anyio.run(run, bench, False)


def ask64(bench: Bench) -> None:
    """Many at once."""
    anyio.run(run, bench, True)


if __name__ == "__main__":
    main({"ask": ask, "ask64": ask64}, "anyio")
