"""Ten thousand ways to be a bad client, each from a seed, against a server that good clients use meanwhile.

A case is one connection over a memory stream, in virtual time. It knows what it is owed: answers with certain ids and
codes, a refusal, or nothing but an end. Whatever it does, nothing may escape from the server's handler, no bug may
stand in the log, the good client has to be answered, and afterwards nothing of the case may be left.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Final

import trio
from attrs import define, field, frozen
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from tests.models import model
from tests.server.fuzz_cases import KINDS, MAX_HEADER, MAX_MESSAGE, MAY_END, NARROW, Case, Unfair
from tests.server.fuzz_messages import request
from tests.server.peer import Gone, Peer
from wizard_actors import WizardConfig
from wizard_actors.config import RetryConfig, ScriptStep, ServerConfig, SessionsConfig, SimulatedConfig, StreamConfig
from wizard_actors.server.access import Access
from wizard_actors.server.limits import Limits
from wizard_actors.server.service import Service
from wizard_actors.server.websocket import WebSocketEndpoint
from wizard_actors.trio_client import TrioClient

__all__ = ["KINDS", "Report", "fuzz"]

PATIENCE: Final = 900.0
"""Virtual seconds after which whoever is owed something has waited in vain."""

AT_ONCE: Final = 8
"""Cases that run at the same time."""


@frozen
class Report:
    """What came of it: cases by kind, answers to the good client, and what was wrong, each with its case."""

    cases: Counter[str]
    answered: int
    problems: list[str]


# -- the server, and everybody at it -----------------------------------------------------------------

ANSWER: Final = " ".join(["word"] * 40)
FAULTS: Final = ("error", "auth", "disconnect", "truncate", "rate_limit")
CONFIG: Final = WizardConfig(
    models=[
        model("quick", simulated=SimulatedConfig(answer=ANSWER, first_token=0.01, per_chunk=0.001)),
        model("slow", slots=1000, simulated=SimulatedConfig(answer=ANSWER, first_token=0.2, per_chunk=0.05)),
        model(
            "bad",
            retry=RetryConfig(max_attempts=1),
            simulated=SimulatedConfig(script=[ScriptStep(fault=fault) for fault in FAULTS] * 1000),
        ),
    ],
    server=ServerConfig(max_message=MAX_MESSAGE, max_header=MAX_HEADER),
    stream=StreamConfig(consumer_idle=20.0),
    sessions=SessionsConfig(storage="memory:"),
)


@define
class Bench:
    """A server in memory, and what was seen of it."""

    service: Service
    nursery: trio.Nursery
    problems: list[str] = field(factory=list)
    answered: int = 0
    open: int = 0

    def connect(self, who: str, *, narrow: bool = False) -> Peer:
        """Return the client's end of a new connection; `narrow`: nothing is sent that nobody reads."""
        ours, theirs = lockstep_stream_pair() if narrow else memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs, who)
        return Peer(ours)

    async def _serve(self, stream: trio.abc.Stream, who: str) -> None:
        self.open += 1
        try:
            await WebSocketEndpoint(self.service).handle(stream)
        except Exception as error:  # noqa: BLE001 - just what must not happen
            self.problems.append(f"{who}: {error!r} escaped from the handler")
        finally:
            self.open -= 1

    @property
    def left(self) -> str:
        """What is left of connections that have ended; "" where nothing is."""
        outstanding = self.service.client.supervisor.outstanding
        counts = {"connections": self.open, "requests": self.service.admission.in_progress, "grants": len(outstanding)}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)

    async def empty(self) -> None:
        """Wait until all is quiet, and note what is left then."""
        await trio.sleep(60.0)
        if self.left:
            self.problems.append(f"in the end there were left: {self.left}")


@asynccontextmanager
async def bench(seed: int) -> AsyncIterator[Bench]:
    """Open a server in memory."""
    async with TrioClient.open(CONFIG, rng=Random(seed)) as client, trio.open_nursery() as nursery:
        yield Bench(Service(client, Access(None), Limits(client.supervisor)), nursery)
        nursery.cancel_scope.cancel()


class Bugs(logging.Handler):
    """Keeps what the log says of bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.seen.append(f"{record.name}: {record.getMessage()} {record.exc_info[1] if record.exc_info else ''!r}")


def fuzz(seed: int, cases: int, kinds: Sequence[str] = tuple(KINDS)) -> Report:
    """Run so many cases of these kinds from a seed, in virtual time."""
    bugs, root = Bugs(), logging.getLogger()
    root.addHandler(bugs)
    try:
        report = trio.run(_fuzz, seed, cases, kinds, clock=MockClock(autojump_threshold=0))
    finally:
        root.removeHandler(bugs)
    report.problems.extend(f"the log: {seen}" for seen in bugs.seen)
    return report


async def _fuzz(seed: int, cases: int, kinds: Sequence[str]) -> Report:
    counted: Counter[str] = Counter()
    async with bench(seed) as server:
        for first in range(0, cases, AT_ONCE):
            async with trio.open_nursery() as everybody:
                everybody.start_soon(_good_client, server, first)
                async with trio.open_nursery() as nursery:
                    for number in range(first, min(first + AT_ONCE, cases)):
                        random = Random(f"{seed}/{number}")
                        kind = random.choice(kinds)
                        counted[kind] += 1
                        nursery.start_soon(_case, server, kind, number, random)
                await _settled(server, first)
                everybody.cancel_scope.cancel()
        await server.empty()
        return Report(counted, server.answered, server.problems)


async def _case(server: Bench, kind: str, number: int, random: Random) -> None:
    """Run one case to its end, and note what was unfair about it."""
    who = f"case {number}, {kind}"
    peer = server.connect(who, narrow=kind in NARROW)
    try:
        with trio.fail_after(PATIENCE):
            await KINDS[kind](Case(number, random, peer))
    except trio.TooSlowError:
        server.problems.append(f"{who}: waited in vain")
    except Gone as gone:
        if kind not in MAY_END:
            server.problems.append(f"{who}: the connection was closed: {gone}")
    except Unfair as unfair:
        server.problems.append(f"{who}: {unfair}")
    finally:
        await trio.aclose_forcefully(peer.stream)


async def _good_client(server: Bench, first: int) -> None:
    """Ask, and be answered, again and again."""
    who = f"the good client, at cases from {first} on"
    peer = server.connect(who)
    try:
        await peer.greet()
        for number in count():
            with trio.move_on_after(PATIENCE) as waiting:
                await peer.say(request(number, "generate", prompt="x"))
                message = await peer.hear()
                if message.get("id") == number and isinstance(message.get("result"), dict):
                    server.answered += 1
                else:
                    server.problems.append(f"{who} got {str(message)[:200]}")
            if waiting.cancelled_caught:
                server.problems.append(f"{who} was not answered")
            await trio.sleep(15.0)
    except Gone as gone:
        server.problems.append(f"{who} was cut off: {gone}")
    finally:
        await trio.aclose_forcefully(peer.stream)


async def _settled(server: Bench, first: int) -> None:
    """Wait until nothing is left of the cases; note what is."""
    with trio.move_on_after(PATIENCE):
        while server.open > 1:  # noqa: ASYNC110 - of many, and all the time is virtual
            await trio.sleep(0.5)
        return
    server.problems.append(
        f"after the cases from {first} on there were left: {server.left}, the good client's among them"
    )
