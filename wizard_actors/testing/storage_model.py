"""A storage against a plain dict: any order of calls, by Hypothesis, which has to be installed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord, SessionState, SessionSummary
from wizard_actors.storage.base import SessionStorage, newest_first
from wizard_actors.testing.storage_bench import StorageBench, born, keeps, later

__all__ = ["check_against_a_dict"]

NAMES: Final = ("a", "A", "a/b", "..", "\u00e9", "x" * 200)
PREFIXES: Final = ("a", "A", "b", ".", "/", "e", "%")


@frozen
class Create:
    """Save a new session, whether there is one of the name or not."""

    name: str
    at: int


@frozen
class Grow:
    """Save the version after the one that was stored `behind` saves ago."""

    name: str
    behind: int
    at: int


@frozen
class Renew:
    """Store a session as expired, if there is one, and save a new one of its name."""

    name: str
    at: int


@frozen
class Delete:
    """Delete a session."""

    name: str


@frozen
class Page:
    """List a page, after the session that stands at a place of the whole list."""

    limit: int
    after: int | None
    prefix: str


@frozen
class Purge:
    """Remove old ones."""

    limit: int
    used_before: int | None
    created_before: int | None
    busy: frozenset[str]


Step = Create | Grow | Renew | Delete | Page | Purge

names = st.sampled_from(NAMES)
times = st.integers(0, 2)
instants = st.sampled_from([3, 2, 1])
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(Create, names, times),
        st.builds(Grow, names, st.sampled_from([0, 0, 0, 1, 2]), times),
        st.builds(Renew, names, times),
        st.builds(Delete, names),
        st.builds(Page, st.integers(1, 4), st.none() | st.integers(0, 4), st.just("")),
        st.builds(Page, st.integers(1, 4), st.none() | st.integers(0, 4), st.sampled_from(PREFIXES)),
        st.builds(
            Purge, st.integers(1, 3), st.none() | instants, st.none() | instants, st.frozensets(names, max_size=2)
        ),
    ),
    max_size=30,
)
beginnings = st.dictionaries(names, times, min_size=2)


def check_against_a_dict(bench: StorageBench, examples: int) -> None:
    """Run `examples` lists of calls on storages of `bench`, and compare each answer with a dict's."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(beginnings, steps)
    def agree(beginning: dict[str, int], steps: list[Step]) -> None:
        async def scenario(storage: SessionStorage) -> None:
            model = _Model(storage)
            for step in [*itertools.starmap(Create, beginning.items()), *steps]:
                await model.take(step)
            await model.compare()

        bench.in_storage(scenario)

    agree()


class _Model:
    """What a dict makes of the same calls."""

    def __init__(self, storage: SessionStorage) -> None:
        self.storage = storage
        self.stored: dict[str, SessionRecord] = {}
        self.past: dict[str, list[SessionRecord]] = {name: [] for name in NAMES}

    async def take(self, step: Step) -> None:
        """Make one call, and compare."""
        match step:
            case Create():
                await self.save(born(step.name, float(step.at)))
            case Grow():
                past = self.past[step.name][-1 - step.behind :]
                await self.save(later(past[0] if past else born(step.name), at=float(step.at)))
            case Renew():
                if step.name in self.stored:
                    await self.save(evolve(later(self.stored[step.name]), state=SessionState.EXPIRED))
                await self.save(born(step.name, float(step.at)))
            case Delete():
                there = self.stored.pop(step.name, None) is not None
                keeps(await self.storage.delete(step.name) is there, f"{step} should have returned {there}")
            case Page():
                await self.list(step)
            case Purge():
                await self.purge(step)

    async def save(self, record: SessionRecord) -> None:
        """Save a record, which is a conflict or not."""
        before = self.stored.get(record.id)
        if before is None:
            fits = record.version == 1
        else:
            fits = (record.version, record.created_at) == (before.version + 1, before.created_at)
            fits |= record.version == 1 and before.state is SessionState.EXPIRED
        try:
            await self.storage.save(record)
        except SessionConflictError as error:
            keeps(not fits, f"version {record.version} of {record.id!r} should have been saved over {before}: {error}")
        else:
            keeps(fits, f"version {record.version} of {record.id!r} should be a conflict with {before}")
            self.stored[record.id] = record
            self.past[record.id].append(record)
        keeps(
            await self.storage.load(record.id) == self.stored.get(record.id), f"{record.id!r} was not loaded as saved"
        )

    async def list(self, step: Page) -> None:
        """List a page."""
        whole = self.listed()
        after = whole[step.after] if step.after is not None and step.after < len(whole) else None
        rest = whole if after is None else whole[whole.index(after) + 1 :]
        wanted = [each for each in rest if each.id.startswith(step.prefix)]
        found = await self.storage.list(limit=step.limit, after=after, prefix=step.prefix)
        keeps(list(found) == wanted[: step.limit], f"{step} gave {found} instead of {wanted[: step.limit]}")

    async def purge(self, step: Purge) -> None:
        """Remove old ones."""
        due = sorted(
            record.used_at for record in self.stored.values() if record.id not in step.busy and _is_old(record, step)
        )
        removed = await self.storage.purge(
            limit=step.limit, used_before=step.used_before, created_before=step.created_before, busy=step.busy
        )
        spared = [name for name in removed if name in step.busy or not _is_old(self.stored[name], step)]
        keeps(not spared, f"{step} removed {spared}, which it had to spare")
        ages = sorted(self.stored.pop(name).used_at for name in removed)
        keeps(
            ages == due[: step.limit], f"{step} removed {removed}, last used at {ages} instead of {due[: step.limit]}"
        )

    def listed(self) -> Sequence[SessionSummary]:
        """What a list shows."""
        return sorted((record.summary for record in self.stored.values()), key=newest_first)

    async def compare(self) -> None:
        """Compare everything."""
        keeps(list(await self.storage.list(limit=100)) == list(self.listed()), "the whole list is another")
        for place in range(len(self.stored)):
            await self.list(Page(2, place, ""))
        for name in NAMES:
            keeps(await self.storage.load(name) == self.stored.get(name), f"session {name!r} is another")


def _is_old(record: SessionRecord, step: Purge) -> bool:
    unused = step.used_before is not None and record.used_at < step.used_before
    return unused or (step.created_before is not None and record.created_at < step.created_before)
