"""Many prompts through one client: an outcome each, in order, so many at once."""

import pytest
import trio
from trio.testing import MockClock

from tests.models import Scripted, assert_nothing_held, client_of, fails, model, says
from wizard_actors import ConfigError, InvalidPromptError, Prompt, RequestError, WizardResponse
from wizard_actors.config import BatchConfig


async def test_a_batch_keeps_its_order_and_gives_each_prompt_one_outcome(autojump_clock: MockClock) -> None:
    """A prompt that fails, or is none, stands in its place as its error, and stops none of the others."""
    a = Scripted(says(3.0, "1"), fails(RequestError("bad", model="a")), says("3"), says(1.0, "4"))
    async with client_of(a) as client:
        outcomes = await client.generate_batch(["p", Prompt("q"), "r", "", "s"])
        shown = [each.text if isinstance(each, WizardResponse) else each.code for each in outcomes]
        assert shown[3] == InvalidPromptError.code
        assert sorted(shown[:3] + shown[4:]) == ["1", "3", "4", RequestError.code]
        await assert_nothing_held(client, a)


async def test_a_batch_asks_so_many_at_once(autojump_clock: MockClock) -> None:
    """As configured, or as the caller says; the next prompt is taken when one has ended."""
    for given, most in ((None, 4), (2, 2)):
        a = Scripted(says(1.0, "x"))
        async with client_of(a, batch=BatchConfig(max_concurrency=4)) as client:
            seen: list[int] = []
            a.on_open = lambda _seen, a=a, seen=seen: seen.append(a.in_flight)
            told: list[tuple[int, int | None]] = []
            began = trio.current_time()
            prompts = (str(number) for number in range(8))
            await client.generate_batch(
                prompts, max_concurrency=given, on_progress=lambda *far, told=told: told.append(far)
            )
            assert max(seen) == most
            assert trio.current_time() - began == 8 / most
            assert told == [(number, None) for number in range(1, 9)]


async def test_options_that_no_prompt_could_be_asked_with_are_refused_at_once(autojump_clock: MockClock) -> None:
    """One error, and not one for every prompt."""
    a = Scripted()
    async with client_of(a) as client:
        for options in ({"route": "none"}, {"model": "none"}, {"deadline": -1.0}):
            with pytest.raises(ConfigError):
                await client.generate_batch(["p"], **options)
        with pytest.raises(ConfigError):
            await client.generate_batch(["p"], max_concurrency=0)
        assert a.calls == []


async def test_a_cancelled_batch_leaves_nothing_running(autojump_clock: MockClock) -> None:
    """Neither calls nor tasks."""
    a = Scripted(says(10.0, "x"))
    async with client_of(a, model(slots=3)) as client:
        with trio.move_on_after(5.0) as scope:
            await client.generate_batch([str(number) for number in range(10)], max_concurrency=8)
        assert scope.cancelled_caught
        await assert_nothing_held(client, a)
