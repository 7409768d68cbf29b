"""A request's way through the models of its route: plan, lanes, fallback, and what the caller is told in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio
from attrs import evolve

from wizard_actors.books import Books
from wizard_actors.errors import (
    ActorCrashedError,
    DeadlineExceededError,
    FallbackError,
    ProviderBugError,
    RetryError,
    StreamInterruptedError,
    UnsupportedError,
    WizardError,
)
from wizard_actors.estimate import estimate_input
from wizard_actors.events import BudgetExhausted, BudgetSpent, FellBack
from wizard_actors.failure import total_cost
from wizard_actors.lane import Begun, Lane, ask_router
from wizard_actors.needs import needs_of
from wizard_actors.plan import Choice, ModelFacts, Skip, Skipped, Tactics, Why
from wizard_actors.plan import plan as make_plan
from wizard_actors.race import Race
from wizard_actors.routing import MakePlan
from wizard_actors.strategies import CHAIN_ORDER
from wizard_actors.types import (
    Finished,
    FinishReason,
    Reset,
    ServedBy,
    StreamEvent,
    WizardResponse,
)
from wizard_actors.verdict import Next, Row

__all__ = ["Way", "forget_frames"]


class Way:
    """One request on its way through the models of its route.

    Which error the caller gets: a model's own where the prompt is at fault or only one attempt was made; `RetryError`
    where a single model used its attempts up; `UnsupportedError` where no model's protocol has a place for something in
    the prompt; `FallbackError` where several models failed otherwise, from the first real cause;
    `DeadlineExceededError` where the caller's time was up. All carry every attempt. Where models of the route
    were left out, the message says which, and why: asked again later, the request may end in another error.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._request = books.request
        self._tokens = 0
        self._first = books.request.route.chain[0]
        self._pending: list[Choice] = []
        self._left_out: Sequence[Skipped] = ()
        self._lanes: dict[Lane, None] = {}
        self._hedge_delay: float | None = None
        self._fell: tuple[str, WizardError] | None = None
        self._delivered = False
        self._reset: Reset | None = None

    @property
    def delivered(self) -> bool:
        """Whether the consumer has content that cannot be taken back."""
        return self._delivered

    # -- the models, in order

    async def plan(self) -> None:
        """Ask the router; without it, the chain's own order has to do."""
        shared, route = self._books.shared, self._request.route
        ports = [shared.ports[name] for name in route.chain if name in shared.ports]
        smallest = min((port.config.context_window or math.inf for port in ports), default=math.inf)
        needs = needs_of(self._request.prompt, smallest_window=smallest)
        self._tokens = estimate_input(self._request.prompt)
        shared.budget.deposit(trio.current_time())
        try:
            down = frozenset(port.name for port in ports if port.down)
            how = (route.strategy, route.hedge_delay, route.hedge_quantile, self._tokens)
            plan = await ask_router(self._books, MakePlan(route.chain, down, needs, *how, models=shared.models))
        except ActorCrashedError:  # nothing is known of the models but what is configured
            facts = {
                port.name: ModelFacts(
                    down=port.down, context_window=port.config.context_window, supports=port.config.supports
                )
                for port in ports
            }
            hedged = route.strategy in {"hedged", "parallel"}
            tactics = Tactics(route.strategy if hedged else "sequential", route.hedge_delay)
            plan = make_plan(list(facts), facts, needs, trio.current_time(), tactics=tactics, rng=shared.rng)
        self._pending, self._hedge_delay = list(plan.choices), plan.hedge_delay
        self._left_out = [skip for skip in plan.skipped if skip.reason not in {Skip.DISABLED, Skip.NOT_CHOSEN}]
        if route.strategy not in CHAIN_ORDER:
            self._first = plan.choices[0].model

    async def begin(self, lane: Lane | None = None) -> Begun:
        """Go on, with `lane` where that is to be asked again, until something can be delivered.

        Raises what the caller is told where no model is left.
        """
        while True:  # noqa: ASYNC913 - a turn waits for a lane, or is the last
            if lane is None and self._hedge_delay is not None and len(self._pending) > 1:
                return await self._race(self._hedge_delay)
            lane = lane or await self.next_lane(beside=False, paid=False)
            if lane is None:
                raise AssertionError("a model remains: one was planned, and not all have been given up")
            try:
                begun = await lane.begin()
            except WizardError as error:
                if self.give_up(lane, error):
                    raise self._final(error)  # noqa: B904 - it has its cause
                lane = None
            else:
                self._note_whole(begun)
                return begun

    async def _race(self, delay: float) -> Begun:
        try:
            begun = await Race(self, delay).run()
        except WizardError as error:
            raise self._final(error)  # noqa: B904 - it has its cause
        # Who lost was only slower: should the winner break off, it can be asked again.
        self._pending[:0] = [lane.choice for lane in self._lanes if lane is not begun.lane]
        self._lanes = {begun.lane: None}
        self._note_whole(begun)
        return begun

    def _note_whole(self, begun: Begun) -> None:
        """Note an answer that is complete before anything of it is delivered: whoever leaves meanwhile has had it."""
        if begun.attempt.complete:
            self.answered(begun)

    def leave(self) -> None:
        """Close whatever lane is left. Lanes know the way and it knows them: without this, the prompt and every answer
        would stay until the garbage collector comes by.
        """
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()

    async def next_lane(self, *, beside: bool, paid: bool) -> Lane | None:
        """Return the lane of the next model, None where there is none: see `Candidates`."""
        while True:
            choice = next((choice for choice in self._pending if not (beside and choice.why is Why.PROBE)), None)
            if choice is None or (paid and not self._pay(choice.model)):
                return None
            self._pending.remove(choice)
            port = self._books.shared.ports[choice.model]
            lane = Lane(self._books, port, choice, self, tokens=self._tokens, hedge=paid)
            if await lane.claim() or not self._pending:
                self._lanes[lane] = None
                self._tell_fallback(lane)
                return lane

    def give_up(self, lane: Lane, error: WizardError) -> bool:
        """Note that a model has been given up, and which others make sense; return whether the request is over."""
        self._lanes.pop(lane, None)
        lane.close()
        self._fell = (lane.model, error)
        rule, window = error.verdict.next, lane.port.config.context_window
        if rule is Next.NO or (rule is Next.IF_SPILL and not self._request.route.spill):
            self._pending.clear()
        elif rule is Next.IF_LARGER and window is not None:
            self._pending = [choice for choice in self._pending if self._window(choice) > window]
        return rule is Next.NO or not (self._pending or self._lanes)

    @property
    def waiting(self) -> bool:
        """Whether another model waits to be asked."""
        return bool(self._pending)

    @property
    def remain(self) -> bool:
        """Whether another model waits to be asked, or is being asked."""
        return bool(self._pending) or len(self._lanes) > 1

    def _window(self, choice: Choice) -> float:
        return self._books.shared.ports[choice.model].config.context_window or math.inf

    def _pay(self, model: str) -> bool:
        """Pay for a hedge."""
        now, books = trio.current_time(), self._books
        paid = books.shared.budget.try_spend(now)
        event = BudgetSpent if paid else BudgetExhausted
        books.publish(event(now, self._request.request_id, model, hedge=True))
        return paid

    def _tell_fallback(self, lane: Lane) -> None:
        fell, self._fell = self._fell, None
        if fell is not None:
            model, error = fell
            self._books.publish(
                FellBack(trio.current_time(), self._request.request_id, model, lane.model, error),
            )

    # -- what the caller gets

    def deliver(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """Return what goes to the consumer now: `events`, after a reset where one is due. From then on it has them."""
        if not events:
            return events
        self._delivered = True
        if self._reset is None:
            return events
        reset, self._reset = self._reset, None
        return [reset, *events]

    def broken(self, begun: Begun, error: WizardError) -> Lane | None:
        """Decide what comes after a live answer that broke off; return its lane where the same model is asked again.

        What was delivered cannot be taken back: the consumer is told to drop it where it asked for that, else the
        request has failed.
        """
        lane, text = begun.lane, begun.attempt.assembly.text
        lane.failed(error)
        if self._books.shared.config.stream.on_interruption == "fail":
            if error.verdict.next is not Next.NO:
                raise StreamInterruptedError(
                    f"{lane.model} broke off after {len(text)} characters: {error}",
                    model=lane.model,
                    partial=text,
                    attempts=self._books.attempts,
                ) from error
        else:
            self._reset = Reset(lane.model, error.code)
            self._delivered = False
        if lane.again():
            return lane
        if self.give_up(lane, error):
            raise self._final(error)
        return None

    def served_by(self, begun: Begun) -> ServedBy:
        """Return which step of the way answers."""
        if begun.lane.model != self._first:
            return ServedBy.FALLBACK
        return ServedBy.RETRY if begun.lane.attempts > 1 else ServedBy.DIRECT

    def answered(self, begun: Begun) -> WizardResponse:
        """Return the response, made once."""
        if self._books.response is not None:
            return self._books.response
        attempt, name = begun.attempt, begun.lane.model
        attempts = self._books.attempts
        for record in attempts:
            forget_frames(record.error)
        parts = attempt.assembly
        finished = parts.finished or Finished(FinishReason.OTHER)
        self._books.response = WizardResponse(
            text=parts.text,
            model=name,
            upstream_model=attempt.upstream_model,
            usage=parts.usage,
            cost=None if attempt.cost is None else total_cost(attempts),
            finish_reason=finished.reason,
            raw_finish_reason=finished.raw,
            thoughts=parts.thoughts,
            tool_calls=parts.tool_calls,
            attempts=attempts,
            served_by=self.served_by(begun),
            request_id=self._request.request_id,
            raw=parts.raw,
        )
        return self._books.response

    def _final(self, error: WizardError) -> WizardError:
        """Return what the caller is told, with every attempt and the right cause."""
        records = [record for record in self._books.attempts if not record.cancelled]
        errors = [record.error for record in records if record.error is not None]
        sent = [record for record in records if record.sent]
        if isinstance(error, DeadlineExceededError):
            earlier = [other for other in errors if other is not error]
            if earlier:
                error.__cause__ = earlier[-1]
            return self._own(error)
        if error.verdict.next is Next.NO and len({record.model for record in sent}) <= 1:
            return self._own(error)  # nobody else would answer this prompt either
        last_words = {record.model: record.error for record in records if record.error is not None}
        said = "; ".join(_with_its_name(model, str(words)) for model, words in last_words.items())
        unsupported = [words for words in last_words.values() if isinstance(words, UnsupportedError)]
        failed: WizardError
        if len(last_words) > 1 and len(unsupported) == len(last_words):
            failed = _unsupported(unsupported, said)
        elif len(last_words) > 1:
            failed = FallbackError(f"every model of the route failed: {said}")
        elif len(records) > 1:
            failed = RetryError(f"{records[-1].model} failed {len(records)} times: {error}")
        else:
            return self._with_others(error) if self._left_out else self._own(error)
        failed.message += self._others()
        real = [error for error in errors if error.row is not Row.UNSENT]
        failed.__cause__ = sent[0].error if sent else (real or errors)[0]
        return failed.with_attempts(self._books.attempts)

    def _with_others(self, error: WizardError) -> WizardError:
        """Return a model's own `error`, told of a route from which others were left out. Not the very error: a provider
        may raise the same one again.
        """
        told = error.copy().with_attempts(self._books.attempts)
        told.message += self._others()
        told.__cause__ = error.__cause__
        return told

    def _others(self) -> str:
        """Return which models of the route were not asked, and why, to stand behind what the others said."""
        said = "; ".join(f"{skip.model} {skip.said}" for skip in self._left_out)
        return f" (not asked: {said})" if said else ""

    def _own(self, error: WizardError) -> WizardError:
        """Return a model's own `error` with every attempt; its own one lists a copy, for no error holds itself."""
        copied = error.copy()
        return error.with_attempts(
            [evolve(record, error=copied) if record.error is error else record for record in self._books.attempts]
        )


def _unsupported(errors: Sequence[UnsupportedError], said: str) -> UnsupportedError:
    features = dict.fromkeys(error.feature for error in errors)
    return UnsupportedError(f"no model of the route can answer this prompt: {said}", feature=", ".join(features))


def _with_its_name(model: str, words: str) -> str:
    return words if words.startswith(model) else f"{model}: {words}"


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error that was made up for. They hold every frame of the call, its prompt too, for as
    long as anybody keeps the response. A bug's are kept: nothing else shows where it is.
    """
    while error is not None and not isinstance(error, ProviderBugError):
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
