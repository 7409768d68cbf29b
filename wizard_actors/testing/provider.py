"""What every provider has to keep to, as tests. Subclass `ProviderContract`; for HTTP, the `HttpProviderContract` of
`wizard_actors.testing.http_provider`, which brings the upstream.

Any runner that calls methods named `test_*` runs the suite: pytest as it stands, unittest where the class is a
`unittest.TestCase` too. Each test runs Trio itself, under a virtual clock. What a protocol does not have is skipped.
What is promised is said in `wizard_actors.providers.base`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from unittest import SkipTest

import trio
from trio.testing import wait_all_tasks_blocked

from wizard_actors.errors import ProviderError, WizardError
from wizard_actors.providers.base import Answer
from wizard_actors.testing.provider_failures import FailurePromises
from wizard_actors.testing.provider_keeping import KeepingPromises
from wizard_actors.testing.provider_run import (
    BREAKS,
    CALL,
    FAILURES,
    PACE,
    SPARE,
    SWALLOWED,
    Act,
    Bench,
    another,
    cancel,
    client_of,
    finished,
    outcome,
    promised,
    quick,
    read_all,
    step,
    text,
    whole,
)
from wizard_actors.types import Finished, ModelEvent, TextDelta

__all__ = ["PACE", "Act", "Bench", "ProviderContract"]


class ProviderContract(FailurePromises, KeepingPromises):
    """The suite over any protocol. Fill in `bench`, and `has` where upstream cannot do all that `Act` lists.

    `key` is the key that the provider is made with: upstream repeats it in its refusals and in its garbage, and it has
    to be shown nowhere. `retry_after` is for how many seconds the head of LIMITED asks to stay away, None where heads
    do not say so. `unsupported` are prompts that ask for what the provider cannot do. Empty ones are not tried.
    """

    # -- answers

    def test_a_whole_answer_says_once_that_it_is_complete(self) -> None:
        """Its text is what was sent; nothing but a model's events come, none of them empty."""

        async def scenario(bench: Bench) -> None:
            events = await whole(bench)
            promised(TextDelta("") not in events, "an empty text is no event: leave it out")
            promised(text(events) == bench.text(0), f"the text is {text(events)!r}, sent was {bench.text(0)!r}")
            count = sum(isinstance(event, Finished) for event in events)
            promised(count == 1, f"a complete answer has exactly one Finished, not {count}")

        self.play(scenario, Act.ANSWERS)

    def test_an_answer_is_the_same_in_any_pieces(self) -> None:
        """As one piece, and torn to bits: where the wire cuts says nothing of lines, events and characters."""

        async def scenario(bench: Bench) -> None:
            events = await whole(bench)
            promised(
                text(events) == bench.text(0) and finished(events) == 1,
                f"the text is {text(events)!r}, sent was {bench.text(0)!r}: a piece may hold several events, half of "
                "one, or half a character, so keep what is not complete, and decode what is",
            )

        self.play_each(scenario, (Act.JOINED, Act.TORN))

    def test_the_end_is_none_for_ever(self) -> None:
        """Whoever reads on after the end gets None again, and no error."""

        async def scenario(bench: Bench) -> None:
            async with bench.provider.open(CALL) as answer:
                await read_all(answer)
                for _ in range(3):
                    again: object
                    try:
                        again = await answer.read()
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is the wrong answer
                        again = error
                    promised(again is None, f"after its end read() returns None for ever, not {again!r}")

        self.play(scenario, Act.ANSWERS)

    def test_calls_one_after_the_other_are_all_answered(self) -> None:
        """A provider keeps nothing of one call that harms the next."""

        async def scenario(bench: Bench) -> None:
            for number in range(3):
                promised(
                    text(await whole(bench)) == bench.text(number), f"call {number + 1} got the wrong answer's text"
                )

        self.play(scenario, Act.ANSWERS, Act.ANSWERS, Act.ANSWERS)

    def test_two_calls_at_once_share_nothing(self) -> None:
        """Read in turns, each gets its own answer; leaving a third one midway takes nothing from them."""

        async def scenario(bench: Bench) -> None:
            provider = bench.provider
            async with provider.open(CALL) as one, provider.open(CALL) as two:
                async with provider.open(CALL) as left:
                    await left.read()
                said: tuple[list[ModelEvent], list[ModelEvent]] = [], []
                running = {0: one, 1: two}
                for reads in count():
                    if not running:
                        break
                    another(reads)
                    for number, answer in list(running.items()):
                        events = await step(answer)
                        if events is None:
                            del running[number]
                        said[number].extend(events or ())
            for number, events in enumerate(said):
                promised(
                    text(events) == bench.text(number) and finished(events) == 1,
                    f"of two calls at once number {number + 1} got {text(events)!r}, sent was {bench.text(number)!r}: "
                    "what belongs to a call has to live in its exchange, not in the provider",
                )

        self.play(scenario, Act.ANSWERS, Act.ANSWERS, Act.ANSWERS)

    def test_a_cut_answer_is_no_success(self) -> None:
        """A connection that breaks, and a body that ends without the sign of completeness: no Finished is made up."""

        async def scenario(bench: Bench) -> None:
            events, error = await outcome(bench)
            promised(finished(events) == 0, "an answer that was cut has no Finished: it would pass for complete")
            promised(
                bench.text(0).startswith(text(events)) and text(events) != bench.text(0),
                f"of a cut answer comes what had arrived, not {text(events)!r}",
            )
            promised(error is None or isinstance(error, ProviderError), f"a cut is a ProviderError, not {error!r}")

        self.play_each(scenario, BREAKS)

    # -- time

    def test_it_is_entered_as_soon_as_the_head_is_here(self) -> None:
        """The body belongs to `read`: what `open` waits for is never taken for a first token."""

        async def scenario(bench: Bench) -> None:
            start = trio.current_time()
            async with bench.provider.open(CALL):
                took = trio.current_time() - start
            promised(took < PACE / 2, f"open waited {took:.3g} s for the body: ask for a stream, and read it in read()")

        self.play(scenario, Act.SLOW)

    def test_a_read_makes_at_most_one_wait(self) -> None:
        """Whoever waits for a whole event in one read looks like a model that has stalled."""

        async def scenario(bench: Bench) -> None:
            async with bench.provider.open(CALL) as answer:
                got: Sequence[ModelEvent] | None = ()
                said: list[ModelEvent] = []
                for reads in count():
                    another(reads)
                    start = trio.current_time()
                    got = await step(answer)
                    took = trio.current_time() - start
                    promised(
                        took < 1.5 * PACE,
                        f"one read() took {took:.3g} s while a piece came every {PACE:g} s: return () for a piece "
                        "without a whole event, instead of waiting for the next one",
                    )
                    if got is None:
                        break
                    said.extend(got)
            promised(text(said) == bench.text(0), f"in small pieces the answer reads {text(said)!r}")

        self.play(scenario, Act.SLOW)

    # -- leaving

    def test_leaving_closes_the_exchange_at_once(self) -> None:
        """Unread, and midway while upstream says nothing: a connection that nobody reads goes on costing."""

        async def unread(bench: Bench) -> None:
            async with bench.provider.open(CALL):
                start = trio.current_time()
            quick(start)

        async def midway(bench: Bench) -> None:
            async with bench.provider.open(CALL) as answer:
                with trio.move_on_after(PACE):
                    await read_all(answer)
                start = trio.current_time()
            quick(start)

        self.play_each(unread, (Act.ANSWERS, Act.STALLS))
        self.play_each(midway, (Act.ANSWERS, Act.STALLS))

    def test_leaving_with_an_error_lets_it_pass(self) -> None:
        """What the block raised comes out of it, as it is."""

        async def scenario(bench: Bench) -> None:
            error, caught = LookupError("of the reader's own"), None
            try:
                async with bench.provider.open(CALL):
                    raise error
            except LookupError as out:
                caught = out
            promised(caught is error, "leaving lets the block's own error pass: return None from __aexit__")

        self.play(scenario, Act.ANSWERS)

    def test_a_call_that_is_cancelled_while_it_opens_leaves_nothing(self) -> None:
        """Cancelled before any head: nothing stays open, and the cancellation passes."""

        async def scenario(bench: Bench) -> None:
            async def call(scope: trio.CancelScope) -> None:
                async with bench.provider.open(CALL):
                    promised(not scope.cancel_called, SWALLOWED)

            await cancel(call)

        self.play(scenario, Act.SILENT)

    def test_a_call_that_is_cancelled_while_it_is_read_leaves_nothing(self) -> None:
        """Cancelled midway: nothing stays open, and the cancellation passes."""

        async def scenario(bench: Bench) -> None:
            async def call(scope: trio.CancelScope) -> None:
                async with bench.provider.open(CALL) as answer:
                    for reads in count():
                        another(reads)
                        await answer.read()
                        promised(not scope.cancel_called, SWALLOWED)

            await cancel(call)

        self.play(scenario, Act.STALLS)

    def test_a_call_that_is_left_under_cancellation_leaves_nothing(self) -> None:
        """Cancelled between two reads: closing does not depend on being allowed to wait."""

        async def scenario(bench: Bench) -> None:
            with trio.CancelScope() as scope:
                async with bench.provider.open(CALL):
                    start = trio.current_time()
                    scope.cancel()
            quick(start)

        self.play_each(scenario, (Act.ANSWERS, Act.STALLS))

    def test_it_is_entered_read_and_left_in_different_tasks(self) -> None:
        """The winner of a race is read by the caller, a stream that nobody reads is closed by the client; the task that
        entered may have ended by then, or go on.
        """

        async def scenario(bench: Bench) -> None:
            for number, goes_on in enumerate((False, True)):
                said = await _in_three_tasks(bench, goes_on=goes_on)
                promised(text(said) == bench.text(number), f"read in another task, the answer is {text(said)!r}")

        try:
            self.play(scenario, Act.ANSWERS, Act.ANSWERS)
        except (AssertionError, SkipTest):
            raise
        except Exception as error:
            first_line = str(error).partition("\n")[0]
            raise AssertionError(
                "an exchange may be entered, read and left in three different tasks: keep no nursery and no cancel "
                f"scope open between entry and end; it broke with {type(error).__name__}: {first_line}"
            ) from error

    # -- facts

    def test_limits_are_known_from_the_start(self) -> None:
        """They are in the head: the limiter is told before the body is read, whatever that says."""
        if self.retry_after is None:
            raise SkipTest("`retry_after` is None: heads say nothing of limits")

        async def scenario(bench: Bench) -> None:
            async with bench.provider.open(CALL) as answer:
                known = None if answer.limits is None else answer.limits.retry_after
            promised(
                known == self.retry_after,
                f"before the first read limits.retry_after is {known}, the head says {self.retry_after}",
            )

        self.play(scenario, Act.LIMITED)

    def test_facts_can_be_asked_at_any_time(self) -> None:
        """`streams`, `limits`, `upstream_model` and `upstream_id` never raise, and are what they are said to be."""

        async def scenario(bench: Bench) -> None:
            promised(isinstance(bench.provider.streams, bool), "`streams` is True or False")
            async with bench.provider.open(CALL) as answer:
                for _ in range(2):
                    for name in ("upstream_model", "upstream_id"):
                        fact = getattr(answer, name)
                        promised(fact is None or isinstance(fact, str), f"`{name}` is a text or None, not {fact!r}")
                    promised(
                        answer.limits is None or hasattr(answer.limits, "retry_after"), "`limits` are LimitHeaders"
                    )
                    await read_all(answer)

        self.play(scenario, Act.ANSWERS)

    # -- behind a client

    def test_a_client_answers_with_it(self) -> None:
        """Whole, and as a stream; slowly, too, without that being taken for silence."""

        async def scenario(bench: Bench) -> None:
            async with client_of(bench) as client:
                try:
                    answered = await client.generate("Why?")
                    async with client.stream("Why?") as stream:
                        said = "".join([piece async for piece in stream.text()])
                except WizardError as error:
                    raise AssertionError(f"a client got no answer out of a sound upstream: {error!r}") from error
            promised((answered.model, answered.text) == ("yours", bench.text(0)), f"generate() returned {answered}")
            promised((stream.response.model, said) == ("yours", bench.text(1)), f"stream() gave {said!r}")

        self.play(scenario, Act.ANSWERS, Act.ANSWERS)
        if self.has(Act.SLOW):
            self.play(scenario, Act.SLOW, Act.SLOW)

    def test_a_client_falls_back_from_it(self) -> None:
        """Whatever goes wrong: the next model answers, and nothing of the failed answer is left in its text."""

        async def scenario(bench: Bench) -> None:
            async with client_of(bench) as client:
                response = await client.generate("Why?")
            promised(response.model == "spare", f"{response.model} answered, though the call failed upstream")
            promised(response.text == SPARE, f"the answer reads {response.text!r}")

        self.play_each(scenario, (*FAILURES, Act.STALLS, Act.SILENT))

    def test_a_cancelled_client_leaves_nothing_held(self) -> None:
        """No slot, no permit, no exchange upstream."""

        async def scenario(bench: Bench) -> None:
            async with client_of(bench) as client:

                async def call(_scope: trio.CancelScope) -> None:
                    await client.generate("Why?")

                await cancel(call)
                await wait_all_tasks_blocked()
                held = client.supervisor.outstanding
                promised(not held, f"after a cancelled call the client still holds {held}")

        self.play_each(scenario, (Act.STALLS, Act.SILENT))


async def _in_three_tasks(bench: Bench, *, goes_on: bool) -> list[ModelEvent]:
    """Return what is read of an exchange in another task than enters it; `goes_on`: the first one outlives it."""
    exchange = bench.provider.open(CALL)
    answers: list[Answer] = []
    said: list[ModelEvent] = []
    entered, left = trio.Event(), trio.Event()

    async def enter() -> None:
        answers.append(await exchange.__aenter__())
        entered.set()
        if goes_on:
            await left.wait()

    async def read() -> None:
        said.extend(await read_all(answers[0]))

    async def leave() -> None:
        await exchange.__aexit__(None, None, None)
        left.set()

    async with trio.open_nursery() as first:
        first.start_soon(enter)
        if goes_on:
            await entered.wait()
            await _each_in_a_task(read, leave)
    if not goes_on:
        await _each_in_a_task(read, leave)
    return said


async def _each_in_a_task(*steps: Callable[[], Awaitable[None]]) -> None:
    for each in steps:
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - the task is what it is for
            nursery.start_soon(each)
