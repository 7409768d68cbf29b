"""A TCP balancer on loopback: each connection goes to the next replica that takes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from tests.server.live import Changes

__all__ = ["Balancer", "balancing"]


@define(eq=False)
class Balancer:
    """`ports` are the replicas, which may change at any time; `taken` counts the connections of each."""

    ports: list[int]
    port: int = 0
    taken: dict[int, int] = field(factory=dict)
    changes: Changes = field(factory=Changes)

    async def relay(self, caller: trio.SocketStream) -> None:
        """Carry one connection to its end; where no replica takes it, it is closed."""
        async with caller:
            replica = await self._replica()
            if replica is None:
                return
            async with replica, trio.open_nursery() as nursery:
                nursery.start_soon(_carry, caller, replica, nursery.cancel_scope)
                nursery.start_soon(_carry, replica, caller, nursery.cancel_scope)

    async def _replica(self) -> trio.SocketStream | None:
        for port in list(self.ports):
            self.ports.append(self.ports.pop(0))
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                continue  # it is being restarted
            self.taken[port] = self.taken.get(port, 0) + 1
            self.changes.ring()
            return stream
        return None


async def _carry(source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        async for data in source:
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()  # one side has gone


@asynccontextmanager
async def balancing(ports: list[int]) -> AsyncIterator[Balancer]:
    """Balance between replicas for the length of a block."""
    balancer = Balancer(ports)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        balancer.port = listener.socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, balancer.relay, [listener])
        yield balancer
        nursery.cancel_scope.cancel()
