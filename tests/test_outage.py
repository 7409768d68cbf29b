"""Whole outages under a virtual clock: what people at 3 a.m. care about."""

from collections import Counter
from random import Random

import pytest
import trio

from wizard_actors import DeadlineExceededError, ResilientClient, ServedBy, WizardConfig
from wizard_actors.supervisor import State

TEN_MINUTES = 600.0


def chain(primary: str) -> WizardConfig:
    """A primary as described, and a healthy backup."""
    return WizardConfig.from_toml(
        f"""
        [[models]]
        name = "primary"
        provider = "simulated"
        simulated = {{ {primary} }}
        [[models]]
        name = "backup"
        provider = "simulated"
        simulated = {{ first_token = 0.3, per_chunk = 0.01 }}
        """,
        env={},
    )


async def test_a_silent_primary_costs_impatient_callers_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The primary stays silent; callers with 2 s, far below its first-token limit, are all answered by the fallback."""
    served: Counter[str] = Counter()
    config = chain('script = [{ fault = "silent", times = 1_000_000 }]')

    async with ResilientClient.open(config, rng=Random(1)) as client, trio.open_nursery() as callers:

        async def caller() -> None:
            answer = await client.generate("quick, please", deadline=2.0)
            served[answer.model] += 1

        for _ in range(int(TEN_MINUTES * 2)):
            callers.start_soon(caller)
            await trio.sleep(0.5)

    assert served == {"backup": TEN_MINUTES * 2}


@pytest.mark.parametrize("every", [1, 5, 20, 90])
async def test_an_impatient_caller_does_not_close_a_healthy_primary_to_the_patient(
    autojump_clock: trio.testing.MockClock, every: int
) -> None:
    """One caller a second has less time than the primary takes; the patient ones, rare or not, all get the primary."""
    patient: Counter[str] = Counter()
    config = chain("first_token = 2, per_chunk = 0.01")

    async with ResilientClient.open(config, rng=Random(1)) as client, trio.open_nursery() as callers:

        async def impatient() -> None:
            answer = await client.generate("quick, please", deadline=1.5)
            assert answer.served_by is ServedBy.FALLBACK

        async def calm() -> None:
            patient[(await client.generate("take your time")).model] += 1

        for second in range(int(TEN_MINUTES)):
            if second % every == 0:
                callers.start_soon(calm)
            callers.start_soon(impatient)
            await trio.sleep(1)

    assert patient == {"primary": -(-TEN_MINUTES // every)}


async def test_a_deadline_that_no_model_meets_is_the_callers_error(autojump_clock: trio.testing.MockClock) -> None:
    """Where all are silent, the caller hears in time, with every attempt."""
    config = chain('script = [{ fault = "silent", times = 9 }]')

    async with ResilientClient.open(config, rng=Random(1)) as client:
        began = trio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate("anybody?", deadline=0.5)

    assert trio.current_time() - began == pytest.approx(0.5)
    assert [attempt.model for attempt in caught.value.attempts] == ["primary", "backup"]


async def test_actors_that_crash_six_times_in_a_row_lose_no_call(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Worker, limiter, breaker and router crash again and again; calls in flight and later ones are all answered."""
    caplog.set_level("CRITICAL", logger="wizard_actors.supervisor")
    config = chain("first_token = 1, per_chunk = 1")
    victims = ["router", *(f"models/model:primary/{name}" for name in ("worker", "limiter", "breaker"))]
    in_flight: list[str] = []
    later: list[str] = []

    async with ResilientClient.open(config, rng=Random(1)) as client:

        async def caller(answers: list[str]) -> None:
            answers.append((await client.generate("hold on")).model)

        async with trio.open_nursery() as callers:
            for _ in range(5):
                callers.start_soon(caller, in_flight)
            await trio.sleep(0.5)  # all of them are waiting for the primary's first token
            for _ in range(6):
                for victim in victims:
                    client.supervisor.kill(victim, RuntimeError("planned"))
                await trio.lowlevel.checkpoint()
                callers.start_soon(caller, later)
                await trio.sleep(1.5)
        crashed = {node.path: node for node in client.tree().walk() if node.error is not None}

        await trio.sleep(150)  # whoever is DOWN is tried again every minute
        states = {node.state for node in client.tree().walk()}
        recovered = (await client.generate("are you back?")).model

    assert in_flight == ["primary"] * 5
    assert len(later) == 6
    assert set(crashed) == {f"wizard/{victim}" for victim in victims}
    assert all(node.error == "RuntimeError: planned" and node.restarts >= 2 for node in crashed.values())
    assert states == {State.RUNNING}
    assert recovered == "primary"
