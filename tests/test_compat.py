"""`wizard_actors.compat`: code of the first Wizard still runs, on either event loop, and is told what replaces it."""

import asyncio
import json
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio

from wizard_actors import (
    AuthError,
    ConfigError,
    EnvVarError,
    InvalidStateTransitionError,
    ResilientClient,
    SupervisorError,
    WizardConfig,
    WizardResponse,
)
from wizard_actors.compat import GenAiClient

Main = Callable[[], Awaitable[None]]

DEPRECATED = r"use ResilientClient\.open\(WizardConfig\.from_env\(\)\)"


def under_trio(main: Main) -> None:
    """Run `main` under Trio."""
    trio.run(main)


def under_asyncio(main: Main) -> None:
    """Run `main` under asyncio."""

    async def run() -> None:
        await main()

    asyncio.run(run())


either_loop = pytest.mark.parametrize("run", [under_trio, under_asyncio])


class Upstream(BaseHTTPRequestHandler):
    """Streams the name of the model and the question back; refuses the key of anybody who asks about keys."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = asked["messages"][-1]["content"]
        if "key" in question:
            self.answer(401, "application/json", json.dumps({"error": {"message": "bad key"}}))
            return
        pieces = [f"{asked['model']}: ", question, "!"]
        deltas = [{"delta": {"content": piece}} for piece in pieces] + [{"delta": {}, "finish_reason": "stop"}]
        events = [f"data: {json.dumps({'choices': [{'index': 0, **delta}]})}\n\n" for delta in deltas]
        self.answer(200, "text/event-stream", "".join([*events, "data: [DONE]\n\n"]))

    def answer(self, status: int, kind: str, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """An environment with one key, and a server on loopback to use it at."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1"}
        server.shutdown()
        thread.join()


def client(model: str, env: dict[str, str]) -> GenAiClient:
    """Return a client of `model`; that it is deprecated is known."""
    with pytest.warns(DeprecationWarning, match=DEPRECATED):
        return GenAiClient.from_env(model, env)


# -- asking ----------------------------------------------------------------------------------------------------------


@either_loop
def test_the_old_calls_still_answer(run: Callable[[Main], None], env: dict[str, str]) -> None:
    """generate, stream and generate_batch, of the model that was named."""
    outcomes: list[object] = []

    async def main() -> None:
        async with client("gpt-4", env) as old:
            response = await old.generate("Why actors?")
            outcomes.extend([response.text, response.model])
            async with old.stream("And now?") as stream:
                outcomes.append([text async for text in stream.text()])
            outcomes.extend(await old.generate_batch(["one", "two"]))

    run(main)

    text, model, streamed, one, two = outcomes
    assert (text, model) == ("gpt-4: Why actors?!", "gpt-4")
    assert streamed == ["gpt-4: ", "And now?", "!"]
    assert isinstance(one, WizardResponse)
    assert isinstance(two, WizardResponse)
    assert (one.text, two.text) == ("gpt-4: one!", "gpt-4: two!")


@either_loop
def test_errors_are_those_of_the_client(run: Callable[[Main], None], env: dict[str, str]) -> None:
    """They leave the block as they are, and the block still closes."""
    old = client("gpt-4", env)

    async def main() -> None:
        async with old:
            await old.generate("which key?")

    with pytest.raises(AuthError):
        run(main)
    with pytest.raises(InvalidStateTransitionError, match="outside of the client's block") as closed:
        old.stream("Why?")
    assert closed.value.from_state == "closed"


@either_loop
def test_a_timeout_goes_through_the_block(run: Callable[[Main], None], env: dict[str, str]) -> None:
    """A cancelled body closes the client; nothing of it is left, and nobody else is cancelled."""
    old = client("gpt-4", env)
    sleep: Callable[[float], Awaitable[None]] = trio.sleep if run is under_trio else asyncio.sleep
    after: list[str] = []

    async def body() -> None:
        async with old:
            await sleep(3600)

    async def main() -> None:
        if run is under_trio:
            with trio.move_on_after(0.05):
                await body()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await body()
        after.append("went on")

    run(main)

    assert after == ["went on"]
    with pytest.raises(InvalidStateTransitionError):
        old.stream("Why?")


def test_what_the_client_s_own_block_makes_of_an_error_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches it, for it may stand for another one: a tree that cannot go on cancels the body."""
    seen: list[BaseException] = []

    @asynccontextmanager
    async def open_(config: WizardConfig) -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            seen.append(error)
            raise SupervisorError("the tree cannot go on", actor="wizard") from error

    monkeypatch.setattr(ResilientClient, "open", open_)

    async def main() -> None:
        async with client("gpt-4", {"OPENAI_API_KEY": "k"}):
            raise KeyError("body")

    with pytest.raises(SupervisorError):
        trio.run(main)
    assert [repr(error) for error in seen] == ["KeyError('body')"]


def test_use_without_the_block_says_how_to_open_it(env: dict[str, str]) -> None:
    """The old client needed no block; that this one does is no mystery."""
    old = client("gpt-4", env)

    async def main() -> None:
        for ask in (old.generate, old.generate_batch):
            with pytest.raises(InvalidStateTransitionError, match=r"async with GenAiClient\.from_env\(model\)"):
                await ask("Why?")
        with pytest.raises(InvalidStateTransitionError, match=r"GenAiClient\.stream\(\) outside"):
            old.stream("Why?")

    trio.run(main)


def test_a_client_is_one_block(env: dict[str, str]) -> None:
    """A second block, inside or after the first, is refused, and does not disturb the first."""
    old = client("gpt-4", env)

    async def main() -> None:
        async with old:
            with pytest.raises(InvalidStateTransitionError, match="make another one"):
                await old.__aenter__()
            assert (await old.generate("still?")).text == "gpt-4: still?!"
        with pytest.raises(InvalidStateTransitionError, match="make another one"):
            await old.__aenter__()

    trio.run(main)


# -- which model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "variable", "provider", "upstream"),
    [
        ("gpt-4", "OPENAI_API_KEY", "openai", "gpt-4"),
        ("o3-mini", "OPENAI_API_KEY", "openai", "o3-mini"),
        ("claude-3-sonnet", "ANTHROPIC_API_KEY", "anthropic", "claude-3-sonnet"),
        ("gemini-pro", "GEMINI_API_KEY", "gemini", "gemini-pro"),
        ("gemini-pro", "GOOGLE_API_KEY", "gemini", "gemini-pro"),
        ("openai", "OPENAI_API_KEY", "openai", "gpt-5-mini"),
    ],
)
def test_an_id_says_whose_model_it_is(model: str, variable: str, provider: str, upstream: str) -> None:
    """It is asked of that provider alone, whatever other keys there are, and answers under its own name."""
    keys = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), "k") | {variable: "k"}

    [only] = client(model, keys).config.models

    assert (only.name, only.provider, only.model, only.api_key_env) == (model, provider, upstream, variable)


def test_settings_of_the_environment_hold() -> None:
    """WIZARD_* variables set what they set for any client."""
    keys = {"OPENAI_API_KEY": "k", "WIZARD_DEFAULTS_RETRY_MAX_ATTEMPTS": "7"}

    assert client("gpt-4", keys).config.model("gpt-4").retry.max_attempts == 7


@pytest.mark.parametrize("strategy", ["hedged", "parallel", "adaptive"])
def test_how_models_take_turns_is_no_matter_of_one(strategy: str) -> None:
    """An environment that is meant for several models serves a client of one too; its static answer holds."""
    keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "WIZARD_FALLBACK_STRATEGY": strategy}

    config = client("gpt-4", keys | {"WIZARD_FALLBACK_STATIC_ANSWER": "Later."}).config

    assert [model.name for model in config.models] == ["gpt-4"]
    assert (config.fallback.name, config.fallback.chain) == ("wizard", ("gpt-4",))
    assert (config.fallback.strategy, config.fallback.static_answer) == ("sequential", "Later.")


def test_an_unknown_model_is_refused_by_name() -> None:
    """No guess is made about who might have it."""
    with (
        pytest.warns(DeprecationWarning, match=DEPRECATED),
        pytest.raises(ConfigError, match=r"'llama-3'.*gpt-.*claude-.*gemini-"),
    ):
        GenAiClient.from_env("llama-3", {"OPENAI_API_KEY": "k"})


@pytest.mark.parametrize("keys", [{}, {"ANTHROPIC_API_KEY": " "}, {"OPENAI_API_KEY": "k"}])
def test_a_missing_key_is_named(keys: dict[str, str]) -> None:
    """The key of the model's provider, whether there are others or none."""
    with pytest.warns(DeprecationWarning, match=DEPRECATED), pytest.raises(EnvVarError, match="'claude-3'") as caught:
        GenAiClient.from_env("claude-3", keys)
    assert caught.value.variable == "ANTHROPIC_API_KEY"


def test_the_environment_is_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Wizard's only argument was the model."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    with pytest.warns(DeprecationWarning, match=DEPRECATED):
        assert GenAiClient.from_env("gpt-4").config.models[0].provider == "openai"


# -- the warning -----------------------------------------------------------------------------------------------------


def test_the_warning_names_what_replaces_it_and_who_called() -> None:
    """It points at the line of the caller."""
    with pytest.warns(DeprecationWarning, match=DEPRECATED) as caught:
        GenAiClient.from_env("gpt-4", {"OPENAI_API_KEY": "k"})
    assert [warning.filename for warning in caught] == [__file__]


def test_each_place_is_warned_once() -> None:
    """Under Python's own filter a loop does not repeat it, another place hears it too."""
    keys = {"OPENAI_API_KEY": "k"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            GenAiClient.from_env("gpt-4", keys)
        GenAiClient.from_env("gpt-4", keys)
    assert len({warning.lineno for warning in caught}) == len(caught) == 2
