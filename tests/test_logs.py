"""Logs: one line a request, as text or JSON, and nothing in them that nobody asked for."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from random import Random

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import NO_JITTER, SILENT, USAGE, Calls, Scripted, Turn, client_of, cut, fails, model, says
from wizard_actors import AuthError, ModelConfig, NetworkError, Prompt, ResilientClient, WizardConfig, WizardError
from wizard_actors.config import LoggingConfig, PriceConfig
from wizard_actors.logs import configure

BROKEN = NetworkError("the connection broke", model="a")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the package's logger as it was."""
    logger = logging.getLogger("wizard_actors")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def logged(settings: LoggingConfig) -> io.StringIO:
    """Configure the logs, and return where they go."""
    stream = io.StringIO()
    configure(settings, stream)
    return stream


async def test_json_is_one_object_a_line_a_request(autojump_clock: MockClock) -> None:
    """With the facts of the whole request, and nothing else."""
    stream = logged(LoggingConfig(format="json"))
    price = PriceConfig(input=Decimal(100), output=Decimal(1000))
    a = Scripted(Turn((0.25, "half", USAGE, BROKEN)), says(0.5, "whole", USAGE))
    async with client_of({"a": a}, model(price=price, retry=NO_JITTER)) as client:
        answer = await client.generate("Why?")

    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "wizard_actors.requests",
        "request_id": answer.request_id,
        "route": "wizard",
        "model": "a",
        "served_by": "retry",
        "attempts": 2,
        "error": None,
        "ms": 750.0,
        "cost": "0.012",
    }


async def test_text_is_one_line_a_request(autojump_clock: MockClock) -> None:
    """Time, level and event first, the facts as `key=value`."""
    stream = logged(LoggingConfig())
    async with client_of(Scripted(says(0.5, "whole"))) as client:
        answer = await client.generate("Why?")

    [line] = stream.getvalue().splitlines()
    assert line.startswith("timestamp=")
    assert "level=info event=request" in line
    facts = "route=wizard model=a served_by=direct attempts=1 error= ms=500.0 cost="
    assert f"request_id={answer.request_id} {facts}" in line


async def test_a_failed_request_is_a_warning_with_its_code(autojump_clock: MockClock) -> None:
    """Where several models failed, that is the code."""
    stream = logged(LoggingConfig(format="json", level="WARNING"))
    async with client_of({"a": Scripted(fails(BROKEN)), "b": Scripted(fails(BROKEN))}) as client:
        await Calls().generate(client)

    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["level"], line["error"], line["served_by"], line["attempts"]) == (
        "warning",
        "all_models_failed",
        None,
        6,
    )


async def test_a_cancelled_request_is_no_warning(autojump_clock: MockClock) -> None:
    """Its caller left; nothing failed."""
    stream = logged(LoggingConfig(format="json"))
    async with client_of(Scripted(SILENT)) as client:
        with trio.move_on_after(2.0):
            await client.generate("Why?")

    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["level"], line["error"], line["ms"]) == ("info", "cancelled", 2000.0)


async def test_the_level_is_obeyed(autojump_clock: MockClock) -> None:
    """A quiet log tells of failures only."""
    stream = logged(LoggingConfig(level="WARNING"))
    async with client_of(Scripted()) as client:
        await client.generate("Why?")

    assert stream.getvalue() == ""


def test_configuring_again_replaces_and_does_not_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    """No line twice, none to the root's handlers, and to stderr unless told otherwise."""
    old = logged(LoggingConfig())
    configure(LoggingConfig(format="json"))

    logging.getLogger("wizard_actors.requests").warning("once")

    assert old.getvalue() == ""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["event"] == "once"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_stays_on_its_line(log_format: str) -> None:
    """A log is read by machines, too."""
    stream = logged(LoggingConfig(format="json" if log_format == "json" else "text"))
    logging.getLogger("wizard_actors.supervisor").error("crashed", exc_info=ValueError("two\nlines"))

    [line] = stream.getvalue().splitlines()
    assert "ValueError" in line


SECRET_PROMPT, SECRET_ANSWER, SECRET_KEY = "canary-prompt", "canary-answer", "canary-key"


async def everything_goes_wrong(settings: LoggingConfig) -> None:
    """Make calls that end in every way, with crashes beside them."""
    turns = (
        says(SECRET_ANSWER),
        fails(BROKEN),
        cut(SECRET_ANSWER),
        Turn(head=KeyError(SECRET_PROMPT)),
        Turn((SECRET_ANSWER, KeyError(SECRET_PROMPT))),
        Turn((SECRET_ANSWER,), closing=KeyError(SECRET_PROMPT)),
        SILENT,
    )
    for turn in turns:
        async with client_of(Scripted(turn), model(retry=NO_JITTER), logging=settings) as client:
            await Calls().generate(client, SECRET_PROMPT, deadline=5.0)
            with trio.move_on_after(1.0), suppress(WizardError):
                async with client.stream(Prompt(SECRET_PROMPT, system=SECRET_PROMPT)) as stream:
                    await anext(stream, None)
                    client.supervisor.kill("models/model:a/worker", RuntimeError("planted"))
                    await wait_all_tasks_blocked()


async def test_no_prompt_and_no_answer_is_ever_logged(autojump_clock: MockClock) -> None:
    """However a call ends, at any level; not even what a provider's bug quotes."""
    stream = logged(LoggingConfig(level="DEBUG"))
    await everything_goes_wrong(LoggingConfig(level="DEBUG"))

    assert stream.getvalue().count("event=request") > 10
    assert "planted" in stream.getvalue()
    assert SECRET_PROMPT not in stream.getvalue()
    assert SECRET_ANSWER not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_prompts_and_answers_are_logged_where_that_is_asked_for(
    autojump_clock: MockClock, log_format: str
) -> None:
    """Still on one line, whatever is in them."""
    settings = LoggingConfig(format="json" if log_format == "json" else "text", log_content=True)
    stream = logged(settings)
    async with client_of(Scripted(says("two\nlines")), logging=settings) as client:
        await client.generate(Prompt('What is "a\nline"?', system="Be brief"))

    [line] = stream.getvalue().splitlines()
    for content in ("Be brief", "What is", "two", "lines"):
        assert content in line
    if log_format == "json":
        shown = json.loads(line)
        assert shown["prompt"] == ["Be brief", 'What is "a\nline"?']
        assert shown["answer"] == "two\nlines"


async def test_a_request_without_an_answer_logs_none(autojump_clock: MockClock) -> None:
    """The prompt is there, the answer is not."""
    settings = LoggingConfig(format="json", log_content=True)
    stream = logged(settings)
    async with client_of(Scripted(fails(AuthError("no", model="a"))), logging=settings) as client:
        await Calls().generate(client, "Why?")

    shown = next(line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == "request")
    assert (shown["prompt"], shown["answer"], shown["error"]) == (["Why?"], None, "auth")


async def test_a_key_appears_nowhere(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in logs, errors, events, the tree, the configuration, though the upstream repeats it to us."""
    seen: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        error = {"message": f"wrong key: {request.headers['authorization']}", "code": "invalid_api_key"}
        return httpx.Response(401, json={"error": error}, headers={"x-request-id": SECRET_KEY})

    def http(**_settings: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(refuse))

    monkeypatch.setenv("CANARY", SECRET_KEY)
    monkeypatch.setattr("wizard_actors.builder.make_http_client", http)
    config = WizardConfig(
        models=[ModelConfig(name="a", provider="openai", base_url="http://127.0.0.1:9/v1", api_key_env="CANARY")],
        logging=LoggingConfig(level="DEBUG", log_content=True),
    )
    stream = logged(config.logging)
    async with ResilientClient.open(config, rng=Random(1)) as client:
        with client.events.subscribe() as events:
            with pytest.raises(AuthError) as caught:
                await client.generate("Why?")
            client.supervisor.kill("models/model:a/limiter", RuntimeError("planted"))
            await wait_all_tasks_blocked()
            told = events.drain()
        shown = [stream.getvalue(), repr(told), repr(client.tree()), repr(client), repr(client._inside.shared.ports)]

    shown += [str(caught.value), repr(caught.value), json.dumps(caught.value.to_dict()), repr(config)]
    assert seen == [f"Bearer {SECRET_KEY}"]
    assert len(told) > 3
    assert [text for text in shown if SECRET_KEY in text] == []
