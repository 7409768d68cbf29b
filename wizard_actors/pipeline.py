"""A request's way: plan, attempts, retries, fallback, and what the caller is told in the end.

All of it runs in the task of whoever asked. A request holds nothing while it waits for its next attempt, and what an
attempt held has been given back before the next one begins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import TypeVar

import trio
from attrs import evolve, frozen

from wizard_actors.actor import ActorRef, Ask
from wizard_actors.attempt import Attempt, Patience, Port, deadline_exceeded
from wizard_actors.config import RouteConfig, WizardConfig
from wizard_actors.errors import (
    ActorCrashedError,
    ActorStoppedError,
    DeadlineExceededError,
    FallbackError,
    MailboxFullError,
    ProviderBugError,
    RetryError,
    StreamInterruptedError,
    WizardError,
)
from wizard_actors.events import AttemptBegan, AttemptEnded, EventStream, FellBack, RequestEnded, Retrying
from wizard_actors.failure import Attempt as Record
from wizard_actors.plan import Choice, Plan, Probe, Why
from wizard_actors.providers.base import Call
from wizard_actors.retry import RetryBudget, retry_delay
from wizard_actors.routing import ClaimProbe, MakePlan, Observed, ProbeOver, RouterState
from wizard_actors.types import (
    ContentDelta,
    End,
    Finished,
    FinishReason,
    ModelEvent,
    Prompt,
    Reset,
    ServedBy,
    StreamEvent,
    UsageUpdate,
    WizardResponse,
)
from wizard_actors.verdict import Again, Next, Row

__all__ = ["Delivery", "Pipeline", "Request"]

log = logging.getLogger("wizard_actors.requests")
log.addHandler(logging.NullHandler())  # its lines are fields, which a program without a handler would print as one word

R = TypeVar("R")


class Delivery(StrEnum):
    """How an answer reaches the caller: as it comes, in pieces once it is complete, or as a whole."""

    LIVE = "live"
    BUFFERED = "buffered"
    WHOLE = "whole"


@frozen
class Request:
    """What the caller asks. `deadline` is an instant, `given` what the caller named, in seconds."""

    prompt: Prompt
    route: RouteConfig
    request_id: str
    delivery: Delivery
    deadline: float = math.inf
    given: float | None = None


class Pipeline:
    """What all requests of one client share: the models, the router, the retry budget."""

    def __init__(
        self,
        config: WizardConfig,
        ports: Mapping[str, Port],
        router: ActorRef[RouterState],
        *,
        stopping: trio.Event,
        events: EventStream,
        rng: Random,
    ) -> None:
        self.config = config
        self.ports = ports
        self.router = router
        self.stopping = stopping
        self.events = events
        self.rng = rng
        self.budget = RetryBudget(config.retry_budget, trio.current_time())
        self.in_flight = 0

    def events_of(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """Return the events of one answer, which end with `End` or an error. To be closed in the task that reads it.

        Raises, while it is read, what the verdict table leaves of all failures: see `_Way`.
        """
        return _Way(self, request).events()


class _Way:
    """One request on its way through the models of its route.

    Which error the caller gets: a model's own where the prompt is at fault or only one attempt was made; `RetryError`
    where a single model used its attempts up; `FallbackError` where several models failed, from the first real cause;
    `DeadlineExceededError` where the caller's time was up. All carry every attempt.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._request = request
        self._began = trio.current_time()
        self._choices: list[Choice] = []
        self._records: list[Record] = []
        self._failures: list[WizardError] = []  # of the model at hand
        self._delay = 0.0
        self._probe: Probe | None = None
        self._delivered = False
        self._reset: Reset | None = None

    @trio.lowlevel.enable_ki_protection
    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield what the caller gets; see `Pipeline.events_of`.

        A Ctrl-C waits for the next wait: anywhere else it could come between a grant and its keeper.
        """
        code: str | None = "cancelled"
        response: WizardResponse | None = None
        self._pipeline.in_flight += 1
        try:
            self._shed()
            await self._make_plan()
            while True:
                attempt = await self._next_attempt()
                held: list[ContentDelta] = []
                try:
                    async with attempt:
                        while (batch := await attempt.read()) is not None:
                            for event in self._pass_on(batch, held):
                                yield event  # noqa: ASYNC119 - whoever reads it closes it: see `events_of`
                except WizardError as error:
                    self._failed(attempt, error)
                    continue
                finally:
                    self._give_back_probe()
                response = self._answered(attempt)
                code = None
                for event in self._complete(response, held):
                    yield event
                return
        except WizardError as error:
            code = error.code
            if not error.attempts:
                error.with_attempts(self._records)
            raise
        finally:
            self._pipeline.in_flight -= 1
            self._report(code, response)

    def _pass_on(self, batch: Sequence[ModelEvent], held: list[ContentDelta]) -> Iterator[StreamEvent]:
        """Yield what may be delivered already; hold, in `held`, what may only be delivered once all of it is here."""
        for event in batch:
            if isinstance(event, (UsageUpdate, Finished)):
                continue
            if self._request.delivery is Delivery.BUFFERED:
                held.append(event)
            elif self._request.delivery is Delivery.LIVE:
                yield from self._resets()
                self._delivered = True
                yield event

    def _complete(self, response: WizardResponse, held: Sequence[ContentDelta]) -> Iterator[StreamEvent]:
        """Yield the rest of a complete answer."""
        yield from self._resets()
        yield from held
        if response.usage is not None:
            yield UsageUpdate(response.usage)
        yield End(response)

    def _resets(self) -> Iterator[Reset]:
        reset, self._reset = self._reset, None
        if reset is not None:
            yield reset

    # -- before an attempt

    def _shed(self) -> None:
        """Refuse a request that is one too many for the whole client."""
        bound = self._pipeline.config.server.max_in_flight
        if self._pipeline.in_flight > bound:
            raise MailboxFullError(
                f"{bound} calls are in flight already, as many as server.max_in_flight allows", actor="wizard"
            )

    async def _make_plan(self) -> None:
        """Ask the router; without it, the chain's own order has to do."""
        chain, ports = self._request.route.chain, self._pipeline.ports
        down = frozenset(name for name in chain if name in ports and ports[name].down)
        self._pipeline.budget.deposit(trio.current_time())
        try:
            plan = await self._ask_router(MakePlan(chain, down))
        except ActorCrashedError:
            plan = Plan(tuple(Choice(name, Why.IN_ORDER) for name in chain if name in ports))
        self._choices = list(plan.choices)

    async def _ask_router(self, message: Ask[R]) -> R:
        """Ask within the request's deadline."""
        try:
            return await self._pipeline.router.ask(message, deadline=self._request.deadline)
        except DeadlineExceededError:
            raise deadline_exceeded(self._request.given) from None

    async def _next_attempt(self) -> Attempt:
        """Wait out the delay, holding nothing, and return the next attempt."""
        if self._delay > 0.0:
            with trio.move_on_after(self._delay):
                await self._pipeline.stopping.wait()
                last = self._failures[-1]
                raise ActorStoppedError("the client was closed before the next attempt", actor="wizard") from last
        await self._claim_probe()
        port = self._pipeline.ports[self._choices[0].model]
        number = len(self._records) + 1
        self._tell(AttemptBegan(trio.current_time(), self._request.request_id, port.name, number))
        call = Call(self._request.prompt, self._request.request_id)
        return Attempt(port, call, self._patience(port), delay=self._delay)

    def _patience(self, port: Port) -> Patience:
        """Say how long the next attempt may take.

        A pause that a 429 asked for is obeyed up to a cap, which is lower while other models remain: whoever was told
        waits it out, whatever else the limiter's queue may cost, and whoever comes later does not begin to.
        """
        retry, last = port.config.retry, len(self._choices) == 1
        obeyed = retry.retry_after_cap if last else retry.retry_after_cap_with_fallback
        told = bool(self._failures) and self._failures[-1].verdict.again is Again.REACQUIRE
        max_wait = port.config.rate_limit.max_wait
        return Patience(
            queue_timeout=self._pipeline.config.server.queue_timeout,
            max_wait=max(max_wait, obeyed) if told else max_wait,
            longest_pause=math.inf if last else obeyed,
            deadline=self._request.deadline,
            given=self._request.given,
            last=last,
        )

    async def _claim_probe(self) -> None:
        """Claim the probe of a model whose bar has expired; move on where another request has it, and others remain."""
        while self._choices[0].why is Why.PROBE and self._probe is None:
            try:
                self._probe = await self._ask_router(ClaimProbe(self._choices[0].model))
            except ActorCrashedError:
                return
            if self._probe is None and len(self._choices) > 1:
                self._choices.pop(0)
            else:
                return

    def _give_back_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            self._pipeline.router.give_back(probe, ProbeOver())

    # -- after an attempt

    def _answered(self, attempt: Attempt) -> WizardResponse:
        for record in self._records:
            _forget_frames(record.error)
        self._note(attempt, None)
        parts, name, first = attempt.assembly, attempt.port.name, self._request.route.chain[0]
        served_by = (
            ServedBy.FALLBACK if name != first else ServedBy.RETRY if len(self._records) > 1 else ServedBy.DIRECT
        )
        finished = parts.finished or Finished(FinishReason.OTHER)
        return WizardResponse(
            text=parts.text,
            model=name,
            upstream_model=attempt.upstream_model,
            usage=parts.usage,
            cost=attempt.cost,
            finish_reason=finished.reason,
            raw_finish_reason=finished.raw,
            reasoning=parts.reasoning,
            tool_calls=parts.tool_calls,
            attempts=tuple(self._records),
            served_by=served_by,
            request_id=self._request.request_id,
        )

    def _failed(self, attempt: Attempt, error: WizardError) -> None:
        """Note the failure, and decide what comes next; raise where nothing does."""
        if isinstance(error, StreamInterruptedError):
            error.partial = attempt.assembly.text
        self._note(attempt, error)
        self._failures.append(error)
        if self._delivered and error.verdict.next is not Next.NO:
            self._interrupted(attempt, error)
        if not self._again(attempt.port):
            self._move_on(attempt.port, error)

    def _note(self, attempt: Attempt, error: WizardError | None) -> None:
        self._records.append(attempt.record(error))
        now, number, sent_at = trio.current_time(), len(self._records), attempt.sent_at
        self._tell(AttemptEnded(now, self._request.request_id, attempt.port.name, number, sent_at is not None, error))
        if sent_at is not None:
            self._pipeline.router.tell(Observed(attempt.port.name, error, sent_at))

    def _interrupted(self, attempt: Attempt, error: WizardError) -> None:
        """What was delivered cannot be taken back: tell the consumer to drop it where it asked for that, else fail."""
        if self._pipeline.config.stream.on_interruption == "fail":
            raise StreamInterruptedError(
                f"{attempt.port.name} broke off after {len(attempt.assembly.text)} characters: {error}",
                model=attempt.port.name,
                partial=attempt.assembly.text,
                attempts=self._records,
            ) from error
        self._reset = Reset(attempt.port.name, error.code)
        self._delivered = False

    def _again(self, port: Port) -> bool:
        """Decide whether the same model is asked again, and after which delay."""
        now, last = trio.current_time(), len(self._choices) == 1
        delay = retry_delay(self._failures, port.config.retry, last=last, rng=self._pipeline.rng)
        if delay is None or now + delay >= self._request.deadline:
            return False
        if self._records[-1].sent and not self._pipeline.budget.try_spend(now):
            return False
        self._delay = delay
        self._tell(Retrying(now, self._request.request_id, port.name, delay))
        return True

    def _move_on(self, port: Port, error: WizardError) -> None:
        """Go on to the next model that makes sense; raise where there is none."""
        self._choices.pop(0)
        self._failures.clear()
        self._delay = 0.0
        rule, window = error.verdict.next, port.config.context_window
        if rule is Next.NO or (rule is Next.IF_SPILL and not self._request.route.spill):
            self._choices.clear()
        elif rule is Next.IF_LARGER and window is not None:
            self._choices = [choice for choice in self._choices if self._window(choice) > window]
        if not self._choices:
            raise self._final(error)
        now, model = trio.current_time(), self._choices[0].model
        self._tell(FellBack(now, self._request.request_id, port.name, model, error))

    def _window(self, choice: Choice) -> float:
        return self._pipeline.ports[choice.model].config.context_window or math.inf

    def _final(self, error: WizardError) -> WizardError:
        """Return what the caller is told, with every attempt and the right cause."""
        records = self._records
        errors = [record.error for record in records if record.error is not None]
        sent = [record for record in records if record.sent]
        if isinstance(error, DeadlineExceededError):
            if len(errors) > 1:
                error.__cause__ = errors[-2]
            return self._own(error)
        if error.verdict.next is Next.NO and all(record.model == records[-1].model for record in sent):
            return self._own(error)  # nobody else would answer this prompt either
        last_words = {record.model: record.error for record in records}
        if len(last_words) > 1:
            said = "; ".join(f"{model}: {words}" for model, words in last_words.items())
            failed: WizardError = FallbackError(f"every model of the route failed: {said}", attempts=records)
        elif len(records) > 1:
            failed = RetryError(f"{records[-1].model} failed {len(records)} times: {error}", attempts=records)
        else:
            return self._own(error)
        real = [error for error in errors if error.row is not Row.UNSENT]
        failed.__cause__ = sent[0].error if sent else (real or errors)[0]
        return failed

    def _own(self, error: WizardError) -> WizardError:
        """Return a model's own `error` with every attempt; its own one lists a copy, for no error holds itself."""
        copied = error.copy()
        return error.with_attempts(
            [evolve(record, error=copied) if record.error is error else record for record in self._records]
        )

    # -- what others learn

    def _tell(self, event: AttemptBegan | AttemptEnded | Retrying | FellBack | RequestEnded) -> None:
        self._pipeline.events.publish(event)

    def _report(self, code: str | None, response: WizardResponse | None) -> None:
        """Publish the end, and log one line."""
        now, request = trio.current_time(), self._request
        model = None if response is None else response.model
        seconds = now - self._began
        self._tell(RequestEnded(now, request.request_id, request.route.name, model, code, len(self._records), seconds))
        costs = [record.cost for record in self._records if record.cost is not None]
        fields: dict[str, object] = {
            "request_id": request.request_id,
            "route": request.route.name,
            "served_by": model,
            "attempts": len(self._records),
            "error": code,
            "ms": round(seconds * 1000, 1),
            "cost": str(sum(costs)) if costs else None,
        }
        if self._pipeline.config.logging.log_content:
            fields["prompt"] = [message.text for message in request.prompt.conversation]
            fields["answer"] = None if response is None else response.text
        log.log(logging.INFO if code in {None, "cancelled"} else logging.WARNING, "request", extra={"fields": fields})


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error that was made up for. They hold every frame of the call, its prompt too, for as
    long as anybody keeps the response. A bug's are kept: nothing else shows where it is.
    """
    while error is not None and not isinstance(error, ProviderBugError):
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
