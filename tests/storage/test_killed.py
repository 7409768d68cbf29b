"""Processes that are killed while they write: what they were told is saved is there, and the storage serves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import pytest
import trio
from attrs import define, field

from tests.storage.killing import MOST, NAMES, Zygote, open_storage, version_of, zygote
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.testing.storage_bench import born

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

KILLS: Final = 200
LONGEST: Final = 0.06
"""Seconds that a writer lives at most; it needs some of them to open the storage."""

SLOWLY: Final = 5 * LONGEST
"""The same, where writers come to little: on a busy machine opening takes all of the time."""


@pytest.fixture
def forking() -> Iterator[Zygote]:
    """Start the process that forks writers."""
    with zygote() as process:
        yield process


@define
class Books:
    """What has to be stored: of each session when it was created and its version; (epoch, 0) where it is not there."""

    stored: dict[str, tuple[float, int]] = field(factory=lambda: dict.fromkeys(NAMES, (0.0, 0)))
    saves: int = 0
    deletions: int = 0
    landed: int = 0

    def heard(self, lines: Sequence[Sequence[str]]) -> None:
        """Note what a writer was told."""
        for what, session, *rest in lines:
            if what == "deleted":
                self.deletions += 1
                self.stored[session] = (0.0, 0)
            else:
                self.saves += 1
                self.stored[session] = (float(rest[0]), int(rest[1]))

    def check(self, session: str, found: SessionRecord | None, epoch: float) -> None:
        """Compare what is found with what has to be: the same, or what the one call made that was never answered."""
        created_at, version = self.stored[session]
        if found is None:
            assert version in {0, MOST}, f"{session} is lost, of which version {version} was acknowledged"
            self.landed += version == MOST
            self.stored[session] = (0.0, 0)
            return
        assert found == version_of(session, found.created_at, found.version), f"{session} was never saved like that"
        if version:
            assert found.created_at == created_at, f"{session} was deleted and made anew, and nobody knows"
            assert found.version - version in {0, 1}, f"version {version} was acknowledged, {found.version} is stored"
        else:
            assert (found.created_at > epoch, found.version) == (True, 1), f"{session} was deleted, and is there"
        self.landed += found.version > version
        self.stored[session] = (found.created_at, found.version)


async def recovered(storage: SessionStorage, books: Books, epoch: float) -> None:
    """Look at every session, in the list too, and see whether the storage serves."""
    for session in NAMES:
        books.check(session, await storage.load(session), epoch)
    wanted = {version_of(name, *stored).summary for name, stored in books.stored.items() if stored[1]}
    assert set(await storage.list()) == wanted
    await storage.save(born("probe", epoch))
    assert await storage.load("probe") == born("probe", epoch)
    assert await storage.delete("probe")


@pytest.mark.long
@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_killed_writer_loses_nothing_that_was_acknowledged(
    backend: str, forking: Zygote, tmp_path: Path, report_line: Callable[[str], None]
) -> None:
    """Killed at 200 random moments, one after the other on the same store: every acknowledged version is there, what
    was under way is there whole or not at all, and the storage opens and serves.
    """
    random = Random(backend)
    books = Books()
    slowest = 0.0

    async def look(epoch: float) -> None:
        async with open_storage(backend, tmp_path) as storage:
            await recovered(storage, books, epoch)

    for kill in range(KILLS):
        epoch = 1e6 * (kill + 1)
        writer = forking.start("grow", backend, tmp_path, epoch=epoch)
        time.sleep(random.uniform(0, LONGEST if books.saves >= 2 * kill else SLOWLY))
        books.heard(writer.kill())
        began = time.perf_counter()
        trio.run(look, epoch)
        slowest = max(slowest, time.perf_counter() - began)

    report_line(
        f"{backend}: {KILLS} kills, {books.saves} saves and {books.deletions} deletions acknowledged, "
        f"{books.landed} more had landed; opened again and checked in {slowest * 1e3:.0f} ms at most"
    )
    assert books.saves > KILLS, "the writers hardly wrote"
    assert books.landed > KILLS / 10, "the kills hit nothing that was under way"
    if backend == "file":
        left = [path.name for path in (tmp_path / "sessions").iterdir() if path.suffix != ".json"]
        assert all(name.startswith(".lock-") for name in left), "what was left unfinished was not removed"
