"""What once went wrong under a whole client, each test named after it. Virtual time."""

from collections import Counter
from random import Random

import pytest
import trio
from trio.testing import MockClock

from wizard_actors import ActorStoppedError, FallbackError, ResilientClient, WizardConfig, WizardError
from wizard_actors.actor import Actor
from wizard_actors.breaker_core import BreakerState, Circuit
from wizard_actors.supervisor import ChildSpec, GroupSpec, Supervisor


def config(text: str) -> WizardConfig:
    """Return the configuration of `text`."""
    return WizardConfig.from_toml(text, env={})


CROWDED = """
[[models]]
name = "limited"
provider = "simulated"
max_concurrency = 16
rate_limit = { requests_per_minute = 60 }
[[models]]
name = "free"
provider = "simulated"
max_concurrency = 200
"""


async def test_a_burst_behind_a_rate_limit_falls_back_instead_of_filling_the_bulkhead(
    autojump_clock: MockClock,
) -> None:
    """Slots held by callers who wait for the limiter are the limiter's doing, and another model is free."""
    served: Counter[str] = Counter()

    async with ResilientClient.open(config(CROWDED), rng=Random(1)) as client, trio.open_nursery() as callers:

        async def caller() -> None:
            served[(await client.generate("Why?")).model] += 1

        for _ in range(200):
            callers.start_soon(caller)

    assert served.total() == 200
    assert served["free"] > 100


async def test_a_retry_after_of_zero_does_not_switch_off_all_backoff(autojump_clock: MockClock) -> None:
    """A provider that says "now" in a 429 is still kept at a distance."""
    text = """
    [[models]]
    name = "m"
    provider = "simulated"
    retry = { max_attempts = 3 }
    simulated = { first_token = 0, script = [{ fault = "rate_limit", retry_after = 0, times = 1000 }] }
    """
    async with ResilientClient.open(config(text), rng=Random(1)) as client:
        began = trio.current_time()
        for _ in range(5):
            with pytest.raises(WizardError):
                await client.generate("Why?")

    assert trio.current_time() - began > 10


QUEUED = {
    "for a slot": "max_concurrency = 1\nsimulated = { first_token = 3 }",
    "for the limiter": "rate_limit = { requests_per_minute = 60, burst = 1 }\nsimulated = { first_token = 5 }",
}


@pytest.mark.parametrize("model", QUEUED.values(), ids=QUEUED.keys())
async def test_leaving_the_client_with_callers_queued_crashes_no_actor(autojump_clock: MockClock, model: str) -> None:
    """Whoever waited is told, and the actors go on in peace with whom they have granted something."""
    told: Counter[str] = Counter()
    text = f'[[models]]\nname = "m"\nprovider = "simulated"\n{model}'

    async with trio.open_nursery() as callers, ResilientClient.open(config(text), rng=Random(1)) as client:

        async def caller() -> None:
            try:
                told[(await client.generate("Why?")).model] += 1
            except WizardError as error:
                told[error.code] += 1

        for _ in range(6):
            callers.start_soon(caller)
        await trio.sleep(0.5)

    assert told == {"m": 1, "actor_stopped": 5}
    assert [node.path for node in client.tree().walk() if node.error is not None] == []


async def test_a_request_that_waits_to_be_tried_again_hears_at_once_that_the_client_closes(
    autojump_clock: MockClock,
) -> None:
    """It holds nothing that a drain would wait for, so nobody else would tell it."""
    text = """
    [[models]]
    name = "m"
    provider = "simulated"
    simulated = { script = [{ fault = "overloaded", retry_after = 50, times = 9 }] }
    """
    told: list[float] = []

    async with trio.open_nursery() as callers, ResilientClient.open(config(text), rng=Random(1)) as client:

        async def caller() -> None:
            with pytest.raises(ActorStoppedError):
                await client.generate("Why?")
            told.append(trio.current_time() - began)

        began = trio.current_time()
        callers.start_soon(caller)
        await trio.sleep(1)

    assert told == [1.0]


async def test_a_model_that_was_slow_once_and_then_dies_opens_its_breaker_to_hurried_callers(
    autojump_clock: MockClock,
) -> None:
    """The benefit of the doubt ends: a model that nobody has heard of for minutes is not slow but dead."""
    text = """
    [[models]]
    name = "first"
    provider = "simulated"
    simulated = { first_token = 6, script = [{ fault = "ok" }, { fault = "silent", times = 100000 }] }
    [[models]]
    name = "second"
    provider = "simulated"
    """
    async with ResilientClient.open(config(text), rng=Random(1)) as client:
        assert (await client.generate("Take your time.")).model == "first"
        for _ in range(200):
            assert (await client.generate("Quick!", deadline=10)).model == "second"
            await trio.sleep(1)
        state = client.supervisor.ref("models/model:first/breaker", BreakerState).published

    assert state is not None
    assert state.circuit is not Circuit.CLOSED


async def test_a_cancelled_actor_still_does_in_its_stop_what_cannot_wait(autojump_clock: MockClock) -> None:
    """The last resort is a cancellation; what an actor started would outlive it otherwise."""
    done: list[str] = []

    class Owner(Actor):
        async def stop(self) -> None:
            done.append("killed")
            await trio.sleep_forever()

    spec = GroupSpec("tree", [ChildSpec("owner", lambda _ledger, _carry: Owner(), shutdown_timeout=1)])
    async with Supervisor(spec) as supervisor:
        supervisor._root.cancel()
        await trio.sleep(0.1)

        assert done == ["killed"]


async def test_what_others_failed_of_does_not_hide_behind_a_full_bulkhead(autojump_clock: MockClock) -> None:
    """Where every model is at its limit, the error says so, not that its slots are in use."""
    text = CROWDED.replace("max_concurrency = 200", "max_concurrency = 4\nrate_limit = { requests_per_minute = 1 }")
    codes: Counter[str] = Counter()

    async with ResilientClient.open(config(text), rng=Random(1)) as client, trio.open_nursery() as callers:

        async def caller() -> None:
            try:
                await client.generate("Why?")
            except FallbackError as error:
                codes.update(attempt.error.code for attempt in error.attempts if attempt.error is not None)

        for _ in range(100):
            callers.start_soon(caller)

    assert set(codes) == {"rate_limit"}


CROWD = """
[[models]]
name = "wide"
provider = "simulated"
max_concurrency = 1000
simulated = { first_token = 0, per_chunk = 0 }
"""


def test_a_crowd_that_is_slower_than_its_leave_is_fresh_is_answered() -> None:
    """Hundreds that come at once keep the event loop busy for longer than a grant counts as new: each grant was given
    back and asked for again, by all of them, for ever. Each step of a task takes two milliseconds of the clock here, on
    whatever machine, so that two hundred are a crowd.
    """
    clock = MockClock(autojump_threshold=0)

    class Slow(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            clock.jump(0.002)

    answered = 0

    async def everybody() -> None:
        async def ask() -> None:
            nonlocal answered
            await client.generate("Why?")
            answered += 1

        async with ResilientClient.open(config(CROWD)) as client:
            with trio.move_on_after(60.0):
                async with trio.open_nursery() as nursery:
                    for _ in range(200):
                        nursery.start_soon(ask)

    trio.run(everybody, clock=clock, instruments=[Slow()])

    assert answered == 200
