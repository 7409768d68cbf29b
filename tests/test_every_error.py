"""Every class of the error tree that can be raised reaches a caller by the public way."""

import inspect
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import (
    SILENT,
    Calls,
    Scripted,
    client_of,
    fails,
    model,
    says,
)
from wizard_actors import (
    AccessDeniedError,
    ActorCrashedError,
    ActorError,
    ActorStoppedError,
    AuthError,
    CircuitOpenError,
    ConfigError,
    ContentFilterError,
    DeadlineExceededError,
    EnvVarError,
    FallbackError,
    InvalidPromptError,
    InvalidStateTransitionError,
    MailboxFullError,
    ModelConfig,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ParseError,
    Prompt,
    ProviderBugError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ResilientClient,
    RetryError,
    SerializationError,
    SessionConflictError,
    SessionNotInitializedError,
    StorageError,
    StreamInterruptedError,
    SupervisorError,
    TokenLimitError,
    UnsupportedError,
    WizardConfig,
    WizardError,
    errors,
)
from wizard_actors.config import (
    BreakerConfig,
    Fault,
    RetryConfig,
    ScriptStep,
    ServerConfig,
    SimulatedConfig,
    SupervisionConfig,
    TimeoutsConfig,
)
from wizard_actors.providers.simulated import SimulatedProvider

BROKEN = NetworkError("the connection broke", model="a")
TRY_ONCE = RetryConfig(max_attempts=1)


def openai(*, key: str | None = None, provider: str = "openai") -> WizardConfig:
    """Return the configuration of one model behind HTTP."""
    remote = ModelConfig(name="remote", provider=provider, base_url="http://127.0.0.1:9/v1", api_key_env=key)
    return WizardConfig(models=[remote])


async def open_and_close(config: WizardConfig) -> None:
    """Open a client for a moment."""
    async with ResilientClient.open(config):
        pass


def faulty(fault: Fault, after_words: int = 0, delay: float | None = None) -> SimulatedProvider:
    """Return a simulated model that meets `fault` at every call."""
    step = ScriptStep(fault=fault, times=1000, after_words=after_words, delay=delay)
    return SimulatedProvider("a", settings=SimulatedConfig(script=[step]))


ONCE = model(retry=TRY_ONCE, timeouts=TimeoutsConfig(first_token=2.0, stall=2.0))


async def of_one_model(fault: Fault, after_words: int = 0) -> None:
    """Ask one model that meets a fault, once."""
    async with client_of(faulty(fault, after_words), ONCE) as client:
        await client.generate("Why?")


async def of_a_bug() -> None:
    """A provider raises what nobody foresaw."""
    async with client_of(Scripted(fails(KeyError("bug")))) as client:
        await client.generate("Why?")


async def of_a_missing_route() -> None:
    """A name that is none."""
    async with client_of(Scripted()) as client:
        await client.generate("Why?", route="none")


async def of_a_missing_variable() -> None:
    """A key that is not in the environment."""
    await open_and_close(openai(key="NO_SUCH_KEY"))


async def of_an_empty_prompt() -> None:
    """Nothing to answer."""
    async with client_of(Scripted()) as client:
        await client.generate("")


async def of_a_protocol_without_a_place() -> None:
    """A seed, which Anthropic's does not know."""
    async with ResilientClient.open(openai(provider="anthropic")) as client:
        await client.generate(Prompt("Why?", seed=1))


async def of_a_prompt_that_is_no_json() -> None:
    """A field that no body can hold."""
    async with ResilientClient.open(openai()) as client:
        await client.generate(Prompt("Why?", extra={"odd": object()}))


async def of_an_early_look() -> None:
    """A response before its end."""
    async with client_of(Scripted()) as client, client.stream("Why?") as stream:
        _ = stream.response


async def of_a_deadline() -> None:
    """A silent model, and a caller in a hurry."""
    async with client_of(Scripted(SILENT)) as client:
        await client.generate("Why?", deadline=1.0)


async def of_an_open_circuit() -> None:
    """A second call after a failure too many."""
    config = model(retry=TRY_ONCE, breaker=BreakerConfig(failure_threshold=1))
    async with client_of(Scripted(fails(BROKEN)), config) as client:
        await Calls().generate(client)
        await client.generate("Why?")


async def of_retries() -> None:
    """One model that always fails."""
    async with client_of(Scripted(fails(BROKEN))) as client:
        await client.generate("Why?")


async def of_a_whole_route() -> None:
    """Two of them."""
    async with client_of({"a": Scripted(fails(BROKEN)), "b": Scripted(fails(BROKEN))}) as client:
        await client.generate("Why?")


async def of_a_full_model() -> None:
    """One slot, two callers."""
    async with client_of(Scripted(says(9.0, "late")), model(slots=1), server=ServerConfig(queue_timeout=1.0)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls().generate, client)
            await wait_all_tasks_blocked()
            calls = Calls()
            await calls.generate(client)
        raise calls.errors[0]


async def of_a_crashed_actor() -> None:
    """A worker that may not be restarted."""
    async with client_of(Scripted(), supervision=SupervisionConfig(max_restarts=0)) as client:
        client.supervisor.kill("models/model:a/worker", RuntimeError("planted"))
        await wait_all_tasks_blocked()
        await client.generate("Why?")


async def of_a_closed_client() -> None:
    """A call after the block."""
    async with client_of(Scripted()) as client:
        pass
    await client.generate("Why?")


async def of_a_broken_tree() -> None:
    """A supervisor's own bug."""
    async with client_of(Scripted()) as client:
        client.supervisor.give_up(RuntimeError("planted"))
        await trio.sleep_forever()


RAISED: dict[type[WizardError], Callable[[], Awaitable[None]]] = {
    ActorCrashedError: of_a_crashed_actor,
    ActorStoppedError: of_a_closed_client,
    AuthError: lambda: of_one_model("auth"),
    CircuitOpenError: of_an_open_circuit,
    ConfigError: of_a_missing_route,
    ContentFilterError: lambda: of_one_model("content_filter"),
    DeadlineExceededError: of_a_deadline,
    EnvVarError: of_a_missing_variable,
    FallbackError: of_a_whole_route,
    InvalidPromptError: of_an_empty_prompt,
    InvalidStateTransitionError: of_an_early_look,
    MailboxFullError: of_a_full_model,
    ModelNotFoundError: lambda: of_one_model("model_not_found"),
    NetworkError: lambda: of_one_model("disconnect"),
    OverloadedError: lambda: of_one_model("overloaded"),
    ParseError: lambda: of_one_model("malformed", 2),
    ProviderBugError: of_a_bug,
    ProviderError: lambda: of_one_model("error"),
    ProviderTimeoutError: lambda: of_one_model("stall", 2),
    QuotaExhaustedError: lambda: of_one_model("quota"),
    RateLimitError: lambda: of_one_model("rate_limit"),
    RequestError: lambda: of_one_model("bad_request"),
    RetryError: of_retries,
    SerializationError: of_a_prompt_that_is_no_json,
    StreamInterruptedError: lambda: of_one_model("truncate", 2),
    SupervisorError: of_a_broken_tree,
    TokenLimitError: lambda: of_one_model("token_limit"),
    UnsupportedError: of_a_protocol_without_a_place,
}
ELSEWHERE = {
    AccessDeniedError,
    ActorError,
    SessionConflictError,
    SessionNotInitializedError,
    StorageError,
    WizardError,
}
"""Bases that nothing raises as themselves, and what the tests of sessions, storages and servers raise."""


def all_errors() -> Iterator[type[WizardError]]:
    """Yield every class of the error tree."""
    for _name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, WizardError):
            yield kind


def test_no_error_class_is_left_out_below() -> None:
    """A new class needs a way to its caller, and a test of it."""
    assert set(all_errors()) == set(RAISED) | ELSEWHERE


@pytest.mark.parametrize(("kind", "raises"), RAISED.items(), ids=[kind.__name__ for kind in RAISED])
async def test_every_error_reaches_a_caller(
    autojump_clock: MockClock, kind: type[WizardError], raises: Callable[[], Awaitable[None]]
) -> None:
    """As itself, and as something that can be shown; a crashed actor as the cause of what could not be done."""
    with pytest.raises(WizardError) as caught:
        await raises()

    error = caught.value.__cause__ if kind is ActorCrashedError else caught.value
    assert type(error) is kind
    assert caught.value.to_dict()["code"] == caught.value.code
    assert str(caught.value)
