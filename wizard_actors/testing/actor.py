"""What an actor of your own has to keep to, as tests: subclass `ActorContract`, and run it with pytest or unittest.

    class TestStock(ActorContract):
        def make(self, ledger: Ledger, carry: object) -> Stock:
            return Stock(10 if carry is None else carry)

        def asks(self) -> list[Ask[object]]:
            return [Take(1), Take(100)]

Each test runs seeded schedules on virtual time: callers ask, wait, hold what was granted to them, leave at random
moments, and the actor is crashed. Two runs of one seed are the same, for one version of Python and Trio.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import ClassVar

from wizard_actors.testing.actor_run import PlantedError, Run, Subject
from wizard_actors.testing.looking import frozen_copy

__all__ = ["ActorContract", "PlantedError"]


class ActorContract(Subject):
    """The promises of an actor; what to fill in stands in `Subject`. `seeds` schedules are run for each promise."""

    seeds: ClassVar[int] = 20

    # -- the promises

    def test_no_sample_crashes_it(self) -> None:
        """Every sample, alone and after all the others, is taken without a crash, and has a handler."""
        for seed, message in enumerate([*self.asks(), *self.tells()]):
            Run(self, Random(seed), samples=[message], callers=1).simulate().sound().heard()
        everything = [*self.asks(), *self.tells()]
        Run(self, Random(0), samples=everything, callers=1).simulate().sound()

    def test_every_ask_is_answered(self) -> None:
        """An ask is answered at once, or kept and answered within `answer_within`; no wake-up is missed."""
        for run in self._runs():
            if run.unanswered:
                raise AssertionError(
                    f"{run}: {run.unanswered[0]} was not answered within {self.answer_within:g} s, though every grant "
                    "came back: answer it, or keep its Reply, and let `wake_at` name the instant at which `tick` "
                    "answers; where it waits for another message, return that one from `settling`"
                )

    def test_who_leaves_is_forgotten(self) -> None:
        """A caller who was cancelled frees its place: nothing is kept for it, and others are served as before."""
        for run in self._runs(leave=True):
            if run.held:
                raise AssertionError(
                    f"{run}: the actor still keeps {run.held} replies whose callers have gone: override `forget`, and "
                    "drop the waiter that it names"
                )
            if run.unanswered:
                raise AssertionError(
                    f"{run}: after others had left, {run.unanswered[0]} was not answered within {self.answer_within:g} "
                    "s: `forget` has to free the place, and a `grant` that returns False has to be undone"
                )
            run.rest()

    def test_grants_come_back(self) -> None:
        """When everybody has given back what was granted, nothing is outstanding, and the actor is as it was."""
        for leave in (False, True):
            for run in self._runs(leave=leave):
                if run.outstanding:
                    raise AssertionError(
                        f"{run}: {run.outstanding} grants are outstanding though all were given back: every "
                        "`Return` that `returns` offers needs a method with `@takes_back`"
                    )
                run.rest()

    def test_a_crash_loses_no_queued_ask(self) -> None:
        """Whoever was queued when the actor crashed is served by the next incarnation."""
        for seed in range(self.seeds):
            run = Run(self, Random(seed), samples=self.asks(), ambush=True).simulate().sound()
            if run.unanswered:
                raise AssertionError(f"{run}: after a crash, {run.unanswered[0]} was not answered")
            if run.refused:
                raise AssertionError(
                    f"{run}: {run.refused[0]} was queued when the actor crashed; the next incarnation did not serve it"
                )

    def test_it_comes_back_after_a_crash(self) -> None:
        """Crashed at random moments, it starts from its ledger and its carry, takes back what an earlier incarnation
        granted, and serves everybody.
        """
        for run in self._runs(leave=True, crash=True):
            if run.unanswered:
                raise AssertionError(
                    f"{run}: after crashes, {run.unanswered[0]} was not answered within {self.answer_within:g} s: "
                    "adopt the grants in the ledger (or fence them with `ledger.clear()`)"
                )
            if run.outstanding:
                raise AssertionError(f"{run}: after crashes, {run.outstanding} grants stay outstanding")
            run.rest()

    def test_published_snapshots_do_not_change(self) -> None:
        """What was published stays as it was: readers hold it, and the next incarnation begins with it."""
        for run in self._runs(leave=True, crash=True):
            changed = [kept for kept, copy in run.snapshots if frozen_copy(kept) != copy]
            if changed:
                raise AssertionError(
                    f"{run}: a snapshot changed after it had been published, and is now {changed[0]!r}: return a "
                    "frozen value from `snapshot`, with copies of what the actor goes on changing"
                )

    def test_snapshots_keep_their_invariant(self) -> None:
        """`always` holds of every snapshot, whatever is cancelled and crashes."""
        for crash in (False, True):
            for run in self._runs(leave=True, crash=crash):
                if run.broken is not None:
                    raise AssertionError(f"{run}: a snapshot breaks `always`: {run.broken}") from run.broken

    def test_it_stops_promptly(self) -> None:
        """It stops within `stop_within` once its grants are back, whatever it was doing; those who wait are told so."""
        for seed in range(self.seeds):
            run = Run(self, Random(seed), leave=True, stop=True).simulate().sound()
            if run.stopping > self.stop_within:
                raise AssertionError(
                    f"{run}: it took {run.stopping:g} s to stop, not {self.stop_within:g} s: `stop` has to be quick"
                )
            if run.unanswered:
                raise AssertionError(f"{run}: {run.unanswered[0]} got no answer when the actor stopped")

    def test_one_seed_gives_one_trace(self) -> None:
        """Two runs of one seed are the same, to the last answer and snapshot."""
        for seed in range(self.seeds):
            first, second = (Run(self, Random(seed), leave=True, crash=True).simulate().trace for _ in range(2))
            here = next((step for step, other in zip(first, second, strict=False) if step != other), None)
            if first != second:
                raise AssertionError(
                    f"seed {seed}: two runs of it part at {here}: take time from `now`, random numbers from a `Random` "
                    "made in `make`, and keep nothing outside of the actor, its carry and its ledger"
                )

    def _runs(self, *, leave: bool = False, crash: bool = False) -> Iterator[Run]:
        for seed in range(self.seeds):
            yield Run(self, Random(seed), leave=leave, crash=crash).simulate().sound()
