"""Tasks that run beside a block, and never change how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["background"]


@asynccontextmanager
async def background(task: Callable[[trio.Nursery], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `task`, which is given the nursery to start others in, for as long as the block lasts.

    At the block's end what still runs is cancelled, and waited for. An error in the block is raised as it is; one of a
    task cancels the block, and is raised as it is too.
    """
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    try:
        nursery.start_soon(task, nursery)
        yield
    finally:
        nursery.cancel_scope.shield = True  # else a block that is cancelled too would lose its own error here
        nursery.cancel_scope.cancel()
        sole: BaseException | None = None
        try:
            # Without the block's error, which a nursery would wrap; what it waits for has been cancelled.
            await manager.__aexit__(None, None, None)  # noqa: ASYNC102 - see above
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            sole = group.exceptions[0]  # a Ctrl-C that came here, or a bug: raised as it is
        if sole is not None:
            raise sole
