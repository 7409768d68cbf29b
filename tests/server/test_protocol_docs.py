"""The reference of the protocol: each of its examples is replayed, and it leaves no method, error or setting out."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Final

import pytest
import trio
from attrs import fields, frozen
from trio.testing import MockClock, memory_stream_pair

from tests.protocol.samples import error_classes
from tests.server.peer import Peer
from tests.server.wire import key
from wizard_actors import WizardConfig
from wizard_actors.config import ServerConfig
from wizard_actors.errors import ProviderError
from wizard_actors.protocol.frames import Code
from wizard_actors.protocol.values import EVENTS
from wizard_actors.server.access import Access
from wizard_actors.server.handshake import CODES
from wizard_actors.server.key_settings import KeysConfig
from wizard_actors.server.limits import Limits
from wizard_actors.server.methods import METHODS
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint
from wizard_actors.trio_client import TrioClient

REFERENCE: Final = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
CONFIG: Final = re.findall(r"^```toml\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)
EXAMPLES: Final = re.findall(r"^```text\n(> .*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)

PATIENCE: Final = 3600.0
"""Virtual seconds."""

KEYS: Final = KeysConfig(keys=[key("example", "wz_example", admin=True)])


@frozen
class Line:
    """One line of an example: sent by the client, or what is shown of the server's."""

    sent: bool
    text: str


def lines(example: str) -> list[Line]:
    """Return the lines of an example; one that begins with spaces goes on the one before."""
    whole = re.sub(r"\n  +", " ", example)
    found = [Line(line[0] == ">", line[2:]) for line in whole.splitlines()]
    assert all(line[:2].rstrip() in {">", "<"} for line in whole.splitlines()), whole
    return found


def shows(shown: str, text: str) -> bool:
    """Say whether `shown` shows a text: `...` stands for anything."""
    pattern = "".join(".*" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", shown))
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def spaced(frame: str) -> str:
    """Return a frame with spaces after commas and colons, for the eye."""
    return json.dumps(json.loads(frame), ensure_ascii=False)


@asynccontextmanager
async def connected() -> AsyncIterator[Peer]:
    """Yield a client's end of a connection to the reference's server."""
    [toml] = CONFIG
    config = WizardConfig.from_toml(toml + '[sessions]\nstorage = "memory:"\n', env={})
    async with TrioClient.open(config, rng=Random(1)) as client, trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        limits = Limits(client.supervisor)
        await limits.prepare(KEYS)
        nursery.start_soon(WebSocketEndpoint(Service(client, Access(KEYS), limits)).handle, theirs)
        yield Peer(ours)
        nursery.cancel_scope.cancel()


async def handshake_differs(peer: Peer, example: Sequence[Line]) -> str:
    """Send the request, and return what the response is where it is not what is shown, "" where it is."""
    request = [line.text for line in example if line.sent]
    shown = "\n".join(line.text for line in example if not line.sent)
    await peer.send("\r\n".join([*request, ""]).encode())
    answer = (await peer.head()).decode()
    if not answer.startswith("HTTP/1.1 101"):
        answer += "\n\n" + spaced((await peer.rest()).decode())
    answer = answer.replace("\r\n", "\n")
    return "" if shows(shown.lower(), answer.lower()) else answer


async def differs(peer: Peer, example: Sequence[Line]) -> str:
    """Send what the client says, and return the first thing that the server does not say as shown, "" where all is."""
    await peer.greet(bearer="wz_example")
    for sent, step in groupby(example, lambda line: line.sent):
        shown = [line.text for line in step]
        for text in shown if sent else ():
            await peer.say(text)
        while shown and not sent:
            frame = spaced((await peer.text()).decode())
            expected = next((text for text in shown if request_of(text) == request_of(frame)), shown[0])
            if not shows(expected, frame):
                return f"shown: {expected}\nsaid:  {frame}"
            shown.remove(expected)
    with trio.move_on_after(5.0):
        return f"the example ends, and the server goes on: {(await peer.text()).decode()}"
    return ""


def request_of(text: str) -> str:
    """Return the id of the request that a message is about, as it stands there."""
    found = re.search(r'"id": ("[^"]*"|-?\d+|null)', text)
    return "" if found is None else found[1]


async def difference(example: str) -> str:
    """Replay one example on a server of its own; return what is different, "" where nothing is."""
    steps = lines(example)
    with trio.fail_after(PATIENCE):
        async with connected() as peer:
            compare = handshake_differs if steps[0].text.startswith("GET ") else differs
            return await compare(peer, steps)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0][:90])
async def test_the_examples_happen_as_they_are_shown(autojump_clock: MockClock, example: str) -> None:
    """What is sent is sent, and what is shown of the server's words is what it says, in that order."""
    assert await difference(example) == ""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0][:90])
async def test_an_example_that_shows_something_else_is_found(autojump_clock: MockClock, example: str) -> None:
    """A digit that is another, in the first thing that the server says."""
    said = example.index("\n<")
    wrong = example[:said] + re.sub(
        r"(?<=[0-9])[0-9]|[0-9]", lambda digit: str(9 - int(digit[0])), example[said:], count=3
    )

    assert wrong != example
    assert await difference(wrong)


async def test_a_response_that_is_not_shown_is_found(autojump_clock: MockClock) -> None:
    """Examples are whole exchanges."""
    whole = next(example for example in EXAMPLES if '"total": 2' in example)
    cut = "".join(whole.splitlines(keepends=True)[:-1])

    assert "goes on" in await difference(cut)


def test_there_are_examples() -> None:
    """The pattern that finds them does."""
    assert len(EXAMPLES) == REFERENCE.count("\n```text\n") > 10


# -- what is described -------------------------------------------------------------------------------


def rows(heading: str) -> list[str]:
    """Return the rows of the first table below a heading."""
    section = REFERENCE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*?\n\n", section, re.MULTILINE | re.DOTALL)
    assert table is not None, heading
    return table[0].strip().splitlines()[2:]


def first_cells(table: Sequence[str]) -> set[str]:
    """Return what the first cells of a table name."""
    return {name for row in table for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_method_is_described() -> None:
    """A row each."""
    assert first_cells(rows("## Methods")) == {*METHODS, "cancel", "unsubscribe"}


def test_every_error_is_described_with_its_facts() -> None:
    """A row each, by its code."""
    described = {
        name: row
        for row in REFERENCE.split("| `data.code` |", 1)[1].splitlines()
        if row.startswith("| `")
        for name in first_cells([row])
    }

    kinds = {kind.code: kind for kind in error_classes()}
    assert set(described) == set(kinds)
    shared = {fact.name for fact in fields(ProviderError)}
    for code, kind in kinds.items():
        names = {fact.name for fact in fields(kind)} - {"message", "attempts"}
        if issubclass(kind, ProviderError) and code != "auth":
            assert "as `auth`" in described[code], code
            names -= shared
        assert all(f"`{name}`" in described[code] for name in names), (code, names)


def test_every_code_is_described() -> None:
    """Of JSON-RPC, and of refused handshakes."""
    assert {row.split("|")[1].strip() for row in rows("## Errors")} == {str(int(code)) for code in Code}
    table = "\n".join(row for row in REFERENCE.splitlines() if re.match(r"\| [345]\d\d", row))
    assert set(re.findall(r"\b[45]\d\d\b", table)) == {str(status) for status in CODES}


def test_every_event_of_a_stream_is_described() -> None:
    """A row each."""
    assert first_cells(rows("### Streams")) == set(EVENTS)


def test_the_settings_that_are_named_exist() -> None:
    """Every `server.NAME`."""
    named = set(re.findall(r"`server\.(\w+)`", REFERENCE))

    assert named
    assert named <= {setting.name for setting in fields(ServerConfig)}
