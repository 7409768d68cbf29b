"""What stored sessions cost, in SQLite, on the disk of the folder that is given, or of the one for temporary files.

    python -m benchmarks.sessions [FOLDER]

10,000 sessions of 20 turns are stored. Then the 50 newest are listed, and one at a time is loaded, each many times; the
bounds are those of the median. At last 64 tasks save the next turn of one session after another for ten seconds, each
on the disk before the next: first alone, then with another task that loads sessions meanwhile. A plain write and wait
for the disk stands beside them, to compare machines by.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Final

import trio
from attrs import Factory, define, evolve, frozen

from wizard_actors.session_json import encode_session
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.types import Message, Role, TokenUsage

__all__ = ["Figures", "Size", "measure"]

NOON: Final = 1_750_000_000.0
QUESTION: Final = "And why is the sky blue at noon, and red in the evening, though it is the same air?"
ANSWER: Final = "Because the light of the evening comes a longer way through it, and loses more of its blue. " * 3


@frozen
class Size:
    """How much is measured."""

    sessions: int = 10_000
    turns: int = 20
    rounds: int = 500
    tasks: int = 64
    seconds: float = 10.0


@define
class Figures:
    """What was found: times in seconds, one for each call."""

    session_bytes: int = 0
    filling: float = 0.0
    file_bytes: int = 0
    disk: list[float] = Factory(list)
    lists: list[float] = Factory(list)
    loads: list[float] = Factory(list)
    turns_a_second: float = 0.0
    turns_beside_loads: float = 0.0
    loads_beside_turns: list[float] = Factory(list)


def turn(at: float) -> TurnRecord:
    """Return a turn of usual size."""
    return TurnRecord(
        [Message(Role.USER, QUESTION), Message(Role.ASSISTANT, ANSWER)],
        at=at,
        model="primary",
        upstream_model="gpt-5-mini-2025-08-07",
        usage=TokenUsage(420, 80),
        cost=Decimal("0.000265"),
        request_id="0f3c2a",
    )


def sessions(size: Size) -> list[SessionRecord]:
    """Return sessions as they are stored at first."""
    turns = tuple(turn(NOON + number) for number in range(size.turns))
    return [
        SessionRecord(
            f"user-{number:06}", created_at=NOON, state=SessionState.ACTIVE, turns=turns, updated_at=NOON + number
        )
        for number in range(size.sessions)
    ]


def next_turn(record: SessionRecord) -> SessionRecord:
    """Return the next version of a session, of as many turns: it does not grow while it is measured."""
    now = record.used_at + 60
    turns = (*record.turns[1:], turn(now))
    return evolve(record, version=record.version + 1, turns=turns, updated_at=now, used_at=now)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


def written(folder: Path) -> float:
    """Return how long the disk takes for a page."""
    with (folder / "page").open("wb") as file:
        began = time.perf_counter()
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began


async def talk(storage: SessionStorage, records: list[SessionRecord], size: Size) -> float:
    """Save turns for some seconds, in many tasks, each with sessions of its own; return how many a second."""
    saved = 0

    async def one(mine: int) -> None:
        nonlocal saved
        while True:  # noqa: ASYNC913 - each has sessions
            for index in range(mine, len(records), size.tasks):
                record = next_turn(records[index])
                await storage.save(record)
                records[index] = record
                saved += 1

    with trio.move_on_after(size.seconds):
        async with trio.open_nursery() as nursery:
            for number in range(min(size.tasks, len(records))):
                nursery.start_soon(one, number)
    return saved / size.seconds


async def measure(folder: Path, size: Size) -> Figures:
    """Fill a storage in `folder`, and measure it."""
    figures, random = Figures(), Random(1)
    records = sessions(size)
    figures.session_bytes = len(encode_session(records[0]))
    figures.disk = [written(folder) for _ in range(50)]
    async with SqliteStorage.open(folder / "sessions.db") as storage:

        async def fill() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(size.tasks):
                    nursery.start_soon(fill_some, records[number :: size.tasks])

        async def fill_some(mine: list[SessionRecord]) -> None:
            for record in mine:
                await storage.save(record)

        async def load_one() -> None:
            await storage.load(random.choice(records).id)

        async def load_meanwhile() -> None:
            while True:
                figures.loads_beside_turns.append(await timed(load_one))
                await trio.sleep(0.01)

        figures.filling = await timed(fill)
        figures.lists = [await timed(storage.list) for _ in range(size.rounds)]
        figures.loads = [await timed(load_one) for _ in range(size.rounds)]
        figures.turns_a_second = await talk(storage, records, size)
    async with SqliteStorage.open(folder / "sessions.db") as storage, trio.open_nursery() as nursery:
        # What a cancelled save had begun may have landed: that session is left alone from here on.
        records = [record for record in records if await storage.load(record.id) == record]
        nursery.start_soon(load_meanwhile)
        figures.turns_beside_loads = await talk(storage, records, size)
        nursery.cancel_scope.cancel()
    figures.file_bytes = (folder / "sessions.db").stat().st_size
    return figures


def report(size: Size, found: Figures) -> None:
    """Print the figures."""

    def say(what: str, times: list[float], bound: str = "") -> None:
        ordered = sorted(times)
        late = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        sys.stdout.write(f"  {what:<34} {statistics.median(ordered) * 1e3:7.2f} ms   p99 {late * 1e3:7.2f} ms{bound}\n")

    sys.stdout.write(
        f"{size.sessions:,} sessions of {size.turns} turns, {found.session_bytes:,} bytes each: filled in "
        f"{found.filling:.1f} s, {found.file_bytes / 2**20:.0f} MiB\n"
    )
    say("a page on the disk", found.disk)
    say("list the 50 newest", found.lists, "   bound 20 ms")
    say("load one", found.loads, "   bound 5 ms")
    say("load one, while turns are saved", found.loads_beside_turns)
    sys.stdout.write(f"  {'turns saved, on the disk':<34} {found.turns_a_second:7,.0f} a second   bound 1,000\n")
    sys.stdout.write(f"  {'the same, while some are loaded':<34} {found.turns_beside_loads:7,.0f} a second\n")


def main() -> None:
    """Measure and print."""
    size = Size()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        report(size, trio.run(measure, Path(folder), size))


if __name__ == "__main__":
    main()
