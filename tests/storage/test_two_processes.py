"""Two processes on one store: no acknowledged turn is lost, conflicts are told, and a stopped one harms nobody."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from tests.storage.killing import NAMES, Zygote, open_storage, zygote
from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.session_files import lock_of
from wizard_actors.testing.storage_bench import born, later, spoken

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

SHARED: Final = 3
"""The sessions that both processes write."""


@pytest.fixture
def forking() -> Iterator[Zygote]:
    """Start the process that forks writers."""
    with zygote() as process:
        yield process


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_of_two_processes_neither_loses_a_turn(
    backend: str, forking: Zygote, tmp_path: Path, report_line: Callable[[str], None]
) -> None:
    """Both add turns to the same three sessions for a second: each acknowledged turn is there once, in its order, and
    both were told of conflicts.
    """
    writers = [forking.start("append", backend, tmp_path, name=name, sessions=SHARED, seconds=1.0) for name in "ab"]

    announced = [writer.ended() for writer in writers]

    stored: dict[str, list[str]] = {}

    async def look() -> None:
        async with open_storage(backend, tmp_path) as storage:
            for session in NAMES[:SHARED]:
                record = await storage.load(session)
                assert record is not None
                stored[session] = list(spoken(record))
                assert record.version == len(record.turns) + 1

    trio.run(look)
    counted: Counter[str] = Counter()
    for lines, code in announced:
        assert code == 0
        told = Counter(line[0] for line in lines)
        assert told["conflict"] > 0
        assert told["saved"] > 0
        counted.update(told)
    acknowledged = Counter((line[1], line[2]) for lines, _ in announced for line in lines if line[0] == "saved")
    assert acknowledged == Counter((session, text) for session, texts in stored.items() for text in texts)
    for session, texts in stored.items():
        for writer in ("a 0", "a 1", "b 0", "b 1"):
            of_one = [int(text.rpartition(" ")[2]) for text in texts if text.startswith(writer)]
            assert all(first < second for first, second in itertools.pairwise(of_one)), (session, writer)
    report_line(f"{backend}: two processes, {counted['saved']} turns acknowledged, {counted['conflict']} conflicts")


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_two_processes_may_make_the_store_at_once(backend: str, forking: Zygote, tmp_path: Path) -> None:
    """Whichever comes first to a store that is not there yet, both open it and save."""
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        writers = [forking.start("open_and_save", backend, folder, session=name) for name in ("a", "b", "c")]

        assert [writer.ended() for writer in writers] == [([["saved", name]], 0) for name in ("a", "b", "c")]


def test_a_stopped_process_harms_nobody_for_long(forking: Zygote, tmp_path: Path) -> None:
    """While a process is stopped that holds a lock, a save under that lock ends with its caller's deadline and has
    changed nothing; the rest is served; and once the process goes on, that save is too, or is told of the conflict.
    """
    other = next(name for name in map(str, range(100)) if lock_of(name) != lock_of("alice"))

    async def scenario() -> None:
        async with open_storage("file", tmp_path) as storage:
            await storage.save(born("alice"))
            writer = forking.start("stop_inside", "file", tmp_path, session="alice")
            await trio.to_thread.run_sync(writer.heard, "stopping")
            mine = later(born("alice"), "mine")
            try:
                with trio.move_on_after(0.2) as scope:
                    await storage.save(mine)
                assert scope.cancelled_caught
                with trio.fail_after(10):
                    assert await storage.load("alice") == born("alice")
                    await storage.save(born(other))
                    assert {summary.id for summary in await storage.list()} == {"alice", other}
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_refused, storage, mine)
                    await trio.testing.wait_all_tasks_blocked()
                    writer.signal(signal.SIGCONT)
            finally:
                writer.signal(signal.SIGCONT)
            with trio.fail_after(10):
                _, code = await trio.to_thread.run_sync(writer.ended)
                assert code == 0
                record = await storage.load("alice")
                assert record is not None
                assert list(spoken(record)) == ["by the stopped one"]
                await storage.save(later(record, "mine"))

    trio.run(scenario)


async def _refused(storage: SessionStorage, record: SessionRecord) -> None:
    with trio.fail_after(10), pytest.raises(SessionConflictError):
        await storage.save(record)
