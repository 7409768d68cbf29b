"""A client works in the event loop in which it was opened: another one is told so, and the client goes on."""

import asyncio
from collections.abc import Callable

import pytest
import trio

from tests.embed.hosts import bounded
from tests.models import Scripted, client_of
from wizard_actors import UnsupportedError


@pytest.mark.parametrize("start", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
async def test_a_client_of_one_trio_run_is_refused_in_another_loop(start: Callable[[object], None]) -> None:
    """Its actors would be asked from a task that they cannot wake."""
    a = Scripted()
    async with client_of(a) as client:

        async def strangers() -> None:
            with pytest.raises(UnsupportedError, match="another run of Trio"):
                await client.generate("Why?")
            with pytest.raises(UnsupportedError, match="another run of Trio"):
                async with client.stream("Why?"):
                    pass
            with pytest.raises(UnsupportedError, match="another run of Trio"):
                await client.generate_batch(["Why?"])

        with bounded():
            await trio.to_thread.run_sync(lambda: start(strangers()))
        assert a.calls == []
        assert (await client.generate("Why?")).text == "Hello"
