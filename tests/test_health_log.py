"""What the log says of a model that fails: enough to know whom to call."""

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from tests.models import Scripted, client_of, fails, model, says
from tests.test_reload import config_of
from wizard_actors import AuthError, OverloadedError, WizardError
from wizard_actors.config import BreakerConfig, RetryConfig

LOGGER = "wizard_actors.health"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of the models."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def test_a_model_that_refuses_the_key_is_told_once_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With what the provider said; the fallback hides it from callers, and so the log must not."""
    refused = AuthError("a answered 401: no such key", model="a")
    async with client_of({"a": Scripted(fails(refused)), "b": Scripted()}, model("a"), model("b")) as client:
        for _ in range(3):
            await client.generate("Why?")

    assert lines(caplog) == ["a is left out for 60 s: a answered 401: no such key"]


async def test_a_circuit_that_opens_and_closes_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Both, so that whoever looks knows whether it is over."""
    down = OverloadedError("a is down", model="a")
    policy = BreakerConfig(failure_threshold=2, open_for=10, success_threshold=1)
    steady = model("a", breaker=policy, retry=RetryConfig(max_attempts=1))
    async with client_of({"a": Scripted(fails(down), fails(down), says("Hello"))}, steady) as client:
        for _ in range(2):
            with pytest.raises(WizardError):
                await client.generate("Why?")
        await trio.sleep(11)
        await client.generate("Why?")

    opened, closed = lines(caplog)
    assert opened.startswith("a failed too often: its circuit is open, for ")
    assert closed == "a: its circuit is closed again"


async def test_a_model_whose_key_is_wrong_again_is_told_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has changed it and reloaded looks now, and not after the minute; of an unchanged model nothing is new."""
    a, b = (Scripted(fails(AuthError(f"{name} answered 401", model=name))) for name in ("a", "b"))
    models = [model(name) for name in ("a", "b", "c")]
    async with client_of({"a": a, "b": b, "c": Scripted()}, *models) as client:
        await client.generate("Why?")
        await client.reload(config_of(evolve(models[0], headers={"x": "y"}), *models[1:]))
        await client.generate("Why?")

    told = "is left out for 60 s:"
    assert lines(caplog) == [
        f"a {told} a answered 401",
        f"b {told} b answered 401",
        f"a {told} a answered 401",
    ]
