"""What people write first, and wrongly: each mistake is told with what to write instead."""

import asyncio
from collections.abc import Callable

import pytest
import trio

from tests.embed.hosts import bounded
from tests.models import Scripted, model
from wizard_actors import BlockingClient, ResilientClient, WizardConfig

CONFIG = WizardConfig(models=[model("a"), model("b")])
LOOPS = pytest.mark.parametrize("run", [trio.run, lambda main: asyncio.run(main())], ids=["trio", "asyncio"])


def opened() -> BlockingClient:
    """Return a client in a thread of its own."""
    return BlockingClient.open(CONFIG, providers={"a": Scripted(), "b": Scripted()})


def test_a_client_that_is_not_opened_by_its_block_is_no_client() -> None:
    """Whatever is asked of it, it says how it is opened."""
    block: object = ResilientClient.open(CONFIG)

    with pytest.raises(AttributeError, match=r"has 'generate': async with ResilientClient\.open"):
        _ = block.generate  # type: ignore[attr-defined]  # the mistake
    with pytest.raises(TypeError, match=r"not awaited: async with ResilientClient\.open"):
        block.__await__()  # type: ignore[attr-defined]  # the mistake
    with pytest.raises(TypeError, match="is asynchronous"), block:  # type: ignore[attr-defined]  # the mistake
        pass


@pytest.mark.parametrize("kind", [ResilientClient, BlockingClient])
def test_a_client_is_not_made_by_calling_its_class(kind: Callable[[object], object]) -> None:
    """It is opened."""
    with pytest.raises(TypeError, match=r"\.open\('wizard\.toml'\) as client"):
        kind("wizard.toml")


@LOOPS
def test_a_blocking_client_has_a_plain_block(run: Callable[[object], None]) -> None:
    """An asynchronous one is refused, and leaves no thread."""

    async def main() -> None:
        with pytest.raises(TypeError, match=r"a plain one: with BlockingClient\.open"):
            async with opened():  # type: ignore[attr-defined]  # the mistake
                pass

    with bounded():
        run(main)


def test_a_client_says_which_models_it_has() -> None:
    """And nothing of their keys."""
    with opened() as client:
        assert repr(client) == "BlockingClient(a, b)"


@LOOPS
def test_run_takes_async_functions_and_plain_ones(run: Callable[[object], None]) -> None:
    """What is neither is told what is wanted, before anything is done."""

    async def where(word: str) -> str:
        await trio.lowlevel.checkpoint()
        return f"{word} async"

    async def main() -> None:
        async with ResilientClient.open(CONFIG, providers={"a": Scripted(), "b": Scripted()}) as client:
            assert await client.run(where, "an") == "an async"
            assert await client.run(str.upper, "plain") == "PLAIN"
            with pytest.raises(TypeError, match="takes a function and its arguments"):
                await client.run(5)  # type: ignore[call-overload]  # the mistake
            assert repr(client) == "ResilientClient(a, b)"

    with bounded():
        run(main)
    with opened() as client:
        assert client.run(where, "an") == "an async"
        assert client.run(str.upper, "plain") == "PLAIN"
