"""Bugs to plant into a request's way: whom it asks, when, in which turn, and what its caller is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from functools import partial
from typing import TypeAlias

import pytest

from wizard_actors import ActorCrashedError, WizardError
from wizard_actors import way as way_module
from wizard_actors.attempt import Attempt
from wizard_actors.breaker_core import BreakerCore
from wizard_actors.failure import Attempt as Record
from wizard_actors.failure import total_cost
from wizard_actors.gcra import GcraCore
from wizard_actors.keeping import Keeping
from wizard_actors.lane import Begun, Lane
from wizard_actors.lru import TtlLru
from wizard_actors.session_store import Begin, Lease
from wizard_actors.way import Way

Patch: TypeAlias = pytest.MonkeyPatch


def single_minded(patch: Patch) -> None:
    """No other model is asked when one has failed."""
    give_up = Way.give_up

    def give_all_up(self: Way, lane: Lane, error: WizardError) -> bool:
        give_up(self, lane, error)
        self._pending.clear()
        return not self._lanes

    patch.setattr(Way, "give_up", give_all_up)


def backwards(patch: Patch) -> None:
    """The chain is tried from its end."""
    make_plan = Way.plan

    async def plan(self: Way) -> None:
        await make_plan(self)
        self._pending.reverse()

    patch.setattr(Way, "plan", plan)


def impatient(patch: Patch) -> None:
    """A hedge begins at once."""
    race = Way._race

    async def at_once(self: Way, delay: float) -> Begun:
        return await race(self, 0.0)

    patch.setattr(Way, "_race", at_once)


def undying(patch: Patch) -> None:
    """What is in the cache never gets old."""
    make = TtlLru.__init__

    def keep(self: TtlLru[object], *, max_entries: int, max_bytes: int, ttl: float, stale_for: float = 0.0) -> None:
        make(self, max_entries=max_entries, max_bytes=max_bytes, ttl=1e9, stale_for=stale_for)

    patch.setattr(TtlLru, "__init__", keep)


def never_open(patch: Patch) -> None:
    """No circuit ever opens."""
    patch.setattr(BreakerCore, "_open", lambda self, turn, now: None)


def restless(patch: Patch) -> None:
    """Nobody is left alone, whatever a 429 asks for."""
    patch.setattr(GcraCore, "pause", lambda self, until, now: None)


def overcharged(patch: Patch) -> None:
    """Callers are told a thousand times what their request cost."""

    def dear(attempts: Iterable[Record]) -> Decimal | None:
        cost = total_cost(attempts)
        return None if cost is None else cost * 1000

    patch.setattr(way_module, "total_cost", dear)


def miscounted(patch: Patch) -> None:
    """Callers are told of no tokens."""
    done = Attempt._done

    def forget(self: Attempt) -> None:
        done(self)
        self.assembly.usage = None

    patch.setattr(Attempt, "_done", forget)


def shuffled(patch: Patch) -> None:
    """Who asks for a turn again after a crash comes behind those who were quicker to do so."""

    async def take(self: Keeping, session: str, request_id: str, *, deadline: float = math.inf) -> Lease:
        ask = partial(self.store.ask, Begin(session, request_id), deadline=deadline)
        try:
            return await ask()
        except ActorCrashedError:
            return await ask()

    patch.setattr(Keeping, "take", take)
