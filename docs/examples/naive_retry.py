"""An app that shows answers as they come: with a retry loop of its own, which looks harmless, and without one.

`test_naive_retry.py` finds out what is wrong with the first.
"""

from collections.abc import Awaitable, Callable
from typing import TextIO

import trio

from wizard_actors import ResilientClient, WizardError

Ask = Callable[[ResilientClient, TextIO], Awaitable[str]]


async def naive(client: ResilientClient, screen: TextIO) -> str:
    """Show an answer as it comes, and ask again where it fails; return it, "" where there is none."""
    for _ in range(5):
        try:
            async with client.stream("Why actors?") as stream:
                async for text in stream.text():
                    print(text, end="", file=screen)
            return stream.response.text
        except WizardError:
            await trio.sleep(1)  # what is on the screen by now stays there: the next answer begins behind it
    return ""


async def mended(client: ResilientClient, screen: TextIO) -> str:
    """Leave retries to the client, which makes none once words were shown, and wipe out what will not be finished."""
    try:
        async with client.stream("Why actors?") as stream:
            async for text in stream.text():
                print(text, end="", file=screen)
        return stream.response.text
    except WizardError:
        screen.truncate(0)
        return ""
