"""What docs/migration.md promises: both programs of a recipe print the same, and every name of ours in it exists.

The programs are run as a reader would, each in a process of its own, against llmock; none may reach for the network.
"""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import getsource
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from unittest.mock import Mock

import attrs
import openai
import pytest
import tenacity
from attrs import frozen

import wizard_actors
from tests.integration.llmock import Behavior, LlmockServer, delay, fail, llmock_running, reply
from tests.test_docs import Block, blocks, same
from wizard_actors import AskOptions, BlockingClient, ModelConfig, ResilientClient, WizardConfig, WizardError
from wizard_actors.config import RetryConfig, RouteConfig, TimeoutsConfig
from wizard_actors.config.strict import inner_table
from wizard_actors.retry import full_jitter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migration.md"
ADDRESS = "127.0.0.1:8123"
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
SENTENCE = "Nobody else can break their state."
TIMEOUT = 60.0

GUARDED = """
import os, runpy, sys

def audit(event, args):
    if event in {"socket.connect", "socket.getaddrinfo"}:
        host = args[0] if event == "socket.getaddrinfo" else args[1][0] if isinstance(args[1], tuple) else "127.0.0.1"
        if host not in {"127.0.0.1", b"127.0.0.1"}:
            os.write(2, f"NETWORK: {event} {host!r}".encode())
            raise OSError("no network here")

sys.addaudithook(audit)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a program that may talk to this machine alone."""

UPSTREAMS: Mapping[str, Sequence[Behavior]] = {
    "A program on asyncio": [fail(500, model="primary"), reply(SENTENCE, times=None)],
    "A plain program, with tools": [
        reply(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}}]),
        reply("Mild and sunny."),
    ],
    "From LangChain": [fail(500, times=2, model="primary"), reply(SENTENCE, times=None)],
    "From tenacity": [fail(500, times=2, model="primary"), reply(SENTENCE, times=None)],
    "From litellm's Router": [fail(500, times=2, model="primary"), reply(SENTENCE, times=None)],
    "From the first Wizard": [reply(SENTENCE, times=None)],
}
"""By the recipe's heading, what its programs meet: each of them the same."""


@frozen
class Recipe:
    """One section with programs, and what they print."""

    heading: str
    programs: tuple[Block, ...]
    output: str


def recipes() -> Iterator[Recipe]:
    """Yield every section of the page that has programs."""
    text = PAGE.read_text(encoding="utf-8")
    headings = [(text.count("\n", 0, found.start()) + 1, found[1]) for found in HEADING.finditer(text)]
    for (line, heading), (end, _) in pairwise([*headings, (sys.maxsize, "")]):
        within = [block for block in blocks(PAGE) if line < int(block.where.partition(":")[2]) < end]
        programs = tuple(block for block in within if block.language == "python")
        if programs:
            [output] = [block.text for block in within if block.language == "text"]
            yield Recipe(heading, programs, output)


RECIPES = list(recipes())


@pytest.fixture(scope="module")
def llmock() -> Iterator[LlmockServer]:
    """One llmock for all recipes."""
    with llmock_running() as server:
        yield server


def run(program: str, folder: Path, server: LlmockServer, stdin: str = "") -> str:
    """Return what the program prints, run in `folder` with `server` in place of the page's address."""
    address = server.url.removeprefix("http://")
    [config] = [block for block in blocks(PAGE) if block.file == "wizard.toml"]
    (folder / "wizard.toml").write_text(config.text.replace(ADDRESS, address), encoding="utf-8")
    (folder / "program.py").write_text(program.replace(ADDRESS, address), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    # Their own tracing is off unless asked for; that it is not asked for here is no business of the shell's.
    asked = ("LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING", "LITELLM_LOCAL_MODEL_COST_MAP")
    env = {name: value for name, value in kept.items() if name not in asked and not name.startswith("WIZARD_")}
    env |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": server.base_url}
    warnings = ("-W", "error", "-W", "ignore:GenAiClient:DeprecationWarning")
    done = subprocess.run(
        [sys.executable, *warnings, "-c", GUARDED, "program.py"],
        cwd=folder,
        env=env,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    return done.stdout


def test_every_recipe_has_an_upstream() -> None:
    """A recipe that is added to the page is run too."""
    assert [recipe.heading for recipe in RECIPES] == list(UPSTREAMS)
    assert all(len(recipe.programs) == 2 for recipe in RECIPES)


@pytest.mark.long
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.heading)
async def test_a_recipe_prints_what_the_page_says(
    recipe: Recipe, side: str, llmock: LlmockServer, tmp_path: Path
) -> None:
    """Before and after meet the same upstream, use up what it has in store, and print the same."""
    llmock.reset()
    await llmock.script(*UPSTREAMS[recipe.heading])
    program = recipe.programs[side == "after"]

    printed = run(program.text, tmp_path, llmock)

    assert same(recipe.output, printed), f"{program.where} prints:\n{printed}"
    assert [each for each in await llmock.pending() if each["times"] is not None] == []
    if side == "after":
        assert [each for each in await llmock.findings() if each.startswith("error")] == []


CHAT_WIZARD_ELSEWHERE = """
import asyncio
from langchain_core.tools import tool
from wizard_actors import ResilientClient

@tool
def weather(city: str) -> str:
    "Now, in a city"
    return f"21 C in {city}"

with BlockingClient.open("wizard.toml") as client:
    model = ChatWizard(client=client).bind_tools([weather])
    said = model.invoke("How is Rome?")
    told = [weather.invoke(call) for call in said.tool_calls]
    print(said.tool_calls[0]["args"], told[0].content)
    print(model.invoke(["How is Rome?", said, *told]).content)
    print("".join(chunk.content for chunk in model.stream(["How is Rome?", said, *told])))

class AsyncWizard(ChatWizard):
    client: ResilientClient

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        answer = await self.client.generate(as_prompt(messages, stop), route=self.route)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer.text))])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        async with self.client.stream(as_prompt(messages, stop), route=self.route) as stream:
            async for text in stream.text():
                yield ChatGenerationChunk(message=AIMessageChunk(text))

async def main():
    async with ResilientClient.open("wizard.toml") as client:
        chain = AsyncWizard(client=client) | StrOutputParser()
        print(await chain.ainvoke("Why actors?"))
        print("".join([text async for text in chain.astream("Why actors?")]))

asyncio.run(main())
"""


async def test_the_model_for_langchain_calls_tools_and_has_an_asyncio_form(
    llmock: LlmockServer, tmp_path: Path
) -> None:
    """The class of the page takes tools, gives their results back, and can be written over the asyncio client."""
    llmock.reset()
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    await llmock.script(reply(tool_calls=[call]), reply("Mild."), reply("Mild."), reply(SENTENCE, times=2))
    [langchain] = [recipe for recipe in RECIPES if recipe.heading == "From LangChain"]
    definitions, _, _ = langchain.programs[1].text.partition("with BlockingClient.open")

    printed = run(definitions + CHAT_WIZARD_ELSEWHERE, tmp_path, llmock)

    assert printed == f"{{'city': 'Rome'}} 21 C in Rome\nMild.\nMild.\n{SENTENCE}\n{SENTENCE}\n"


CHAT_WIZARD_STRICT = """
from unittest.mock import patch
from langchain_core.messages import HumanMessage, HumanMessageChunk, ToolMessageChunk

def tried(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"

picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
print(tried(as_prompt, [HumanMessage([{"type": "text", "text": "What is this?"}, picture])], None))
call = {"name": "look", "args": "{}", "id": "1", "index": 0, "type": "tool_call_chunk"}
asked = AIMessageChunk("Yes?", tool_call_chunks=[call])
chunks = [HumanMessageChunk("Hi"), asked, ToolMessageChunk("21 C", tool_call_id="1")]
print([(each.role.value, each.text) for each in as_prompt(chunks, None).messages])

with BlockingClient.open("wizard.toml") as client:
    model = ChatWizard(client=client)
    with patch.object(client, "generate", wraps=client.generate) as generate:
        tools = [{"name": "look"}]
        bound = model.bind(temperature=0.5, max_tokens=7, tools=tools, tool_choice="any", top_p=None)
        said = bound.invoke("Why actors?")
    asked = generate.call_args.args[0]
    print(asked.temperature, asked.max_tokens, asked.tool_choice)
    print(said.usage_metadata["total_tokens"], said.response_metadata)
    with patch.object(client, "stream", wraps=client.stream) as stream:
        chunks = list(model.stream("Why actors?", temperature=0.5))
    used = [each.usage_metadata["total_tokens"] for each in chunks if each.usage_metadata]
    print(stream.call_args.args[0].temperature, *used)
    print(tried(model.bind(logprobs=True).invoke, "Why actors?"))
    print(tried(lambda: list(model.stream("Why actors?", logprobs=True))))
"""


async def test_the_model_for_langchain_drops_nothing(llmock: LlmockServer, tmp_path: Path) -> None:
    """What a message or a binding says is passed on, or raises; what was used is told; chunks are messages too."""
    llmock.reset()
    await llmock.script(reply(SENTENCE, times=None))
    [langchain] = [recipe for recipe in RECIPES if recipe.heading == "From LangChain"]
    definitions, _, _ = langchain.programs[1].text.partition("with BlockingClient.open")

    printed = run(definitions + CHAT_WIZARD_STRICT, tmp_path, llmock).splitlines()

    picture, chunks, bound, told, streamed, *refused = printed
    assert picture == "ValueError: ChatWizard passes on text alone, and here is image_url"
    assert chunks == "[('user', 'Hi'), ('assistant', 'Yes?'), ('tool', '21 C')]"
    assert bound == "0.5 7 required"
    assert re.fullmatch(r"[1-9]\d* \{'model_name': 'primary'.*\}", told)
    assert re.fullmatch(r"0\.5 [1-9]\d*", streamed)
    assert len(refused) == 2
    assert all("TypeError" in each and "'logprobs'" in each for each in refused), refused


def test_the_delays_of_tenacity_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_random_exponential(multiplier, max)` and `base_delay`, `max_delay` draw from the same ranges."""
    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high))
    theirs = tenacity.wait_random_exponential(multiplier=0.1, max=1)
    longest = Mock(spec=random.Random, random=lambda: 1.0, uniform=lambda low, high: high)
    ours = RetryConfig(max_attempts=9, base_delay=0.1, max_delay=1)

    for attempt in range(1, 8):
        state = Mock(spec=tenacity.RetryCallState, attempt_number=attempt)
        drawn_from: object = theirs(state)
        assert drawn_from == (0, pytest.approx(full_jitter(attempt - 1, ours, longest)))


# -- errors ----------------------------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, its own heading left out."""
    below = PAGE.read_text(encoding="utf-8").partition(f"# {heading}\n")[2]
    lines = below[below.index("\n| ") + 1 :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


ERRORS = {row[0].replace("`", ""): [names(cell)[0] for cell in row[1:]] for row in table("Errors")}
NO_ANSWER = 0.3
SAYING = {
    "context_length_exceeded": "This model's maximum context length is 8192 tokens, your messages resulted in 9000.",
    "content_policy_violation": "Your request was rejected as a result of our safety system.",
}
"""What OpenAI writes beside some codes: litellm goes by that."""

LITELLM = """
import json, os, sys
import httpx
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

litellm.suppress_debug_info = True  # it prints beside every error
for url, base_url, timeout, behavior in json.load(sys.stdin):
    httpx.post(f"{url}/_llmock/reset").raise_for_status()
    httpx.post(f"{url}/_llmock/scenario", json={"behaviors": [behavior]}).raise_for_status()
    messages = [{"role": "user", "content": "Why actors?"}]
    try:
        where = {"api_base": base_url, "api_key": "k"}
        litellm.completion(model="openai/primary", messages=messages, max_retries=0, timeout=timeout, **where)
    except Exception as error:
        print(type(error).__name__)
    else:
        print("no error")
"""


def trouble(what: str, server: LlmockServer) -> tuple[str, float, Behavior]:
    """Return the address to ask, for how many seconds to wait, and what is to happen there."""
    if what == "no connection":
        return "http://127.0.0.1:9/v1", TIMEOUT, fail(500)
    if what == "no answer in time":
        return server.base_url, NO_ANSWER, delay(3 * NO_ANSWER)
    status, _, code = what.partition(" ")
    return server.base_url, TIMEOUT, fail(int(status), code=code or None, message=SAYING.get(code))


@pytest.mark.parametrize("what", ERRORS)
async def test_an_error_of_openai_is_this_one_of_ours(what: str, llmock: LlmockServer) -> None:
    """The same failure upstream: the SDK raises what the second column says, we what the last one says."""
    theirs, _, ours = ERRORS[what]
    base_url, timeout, behavior = trouble(what, llmock)
    llmock.reset()
    await llmock.script({**behavior, "times": 2})
    model = ModelConfig(
        name="primary",
        provider="openai",
        base_url=base_url,
        retry=RetryConfig(max_attempts=1),
        timeouts=TimeoutsConfig(first_token=timeout),
    )

    sdk = openai.OpenAI(base_url=base_url, api_key="k", max_retries=0, timeout=timeout)
    with sdk, pytest.raises(openai.OpenAIError) as raised_there:
        sdk.chat.completions.create(model="primary", messages=[{"role": "user", "content": "Why?"}])
    async with ResilientClient.open(WizardConfig(models=[model])) as client:
        with pytest.raises(WizardError) as raised_here:
            await client.generate("Why?")

    assert type(raised_there.value).__name__ == theirs
    assert type(raised_here.value).__name__ == ours


@pytest.mark.long
def test_an_error_of_litellm_is_this_one_of_ours(llmock: LlmockServer, tmp_path: Path) -> None:
    """The third column, in one process, for the sake of the import."""
    troubles = [(llmock.url, *trouble(what, llmock)) for what in ERRORS]
    raised = run(LITELLM, tmp_path, llmock, stdin=json.dumps(troubles)).split()

    assert dict(zip(ERRORS, raised, strict=True)) == {what: theirs for what, (_, theirs, _) in ERRORS.items()}


# -- names -----------------------------------------------------------------------------------------------------------

TABLES = {
    "Settings": 1,
    "From LangChain": 1,
    "From tenacity": 1,
    "From litellm's Router": 1,
    "Names": 1,
    "Error variants": 1,
    "Feature flags": 1,
}
"""By the heading above it, the column in which a table has names of ours."""

NAMED = [(heading, name) for heading, column in TABLES.items() for row in table(heading) for name in names(row[column])]
CLIENTS = (ResilientClient, BlockingClient)


def is_attribute(path: str) -> bool:
    """Say whether `path` leads to a public name of the package, or to an attribute of one."""
    found: object = wizard_actors
    for name in path.split("."):
        fields = attrs.fields_dict(found) if isinstance(found, type) and attrs.has(found) else {}
        of_an_instance = any(found is client and f"self.{name}: " in getsource(client.__init__) for client in CLIENTS)
        if not hasattr(found, name) and name not in fields and not of_an_instance:
            return False
        found = getattr(found, name, None)
    return True


def is_key(path: str) -> bool:
    """Say whether `path` is a setting: of the whole configuration, a model or a route; or an option of a call."""
    if path in AskOptions.__annotations__:
        return True
    first, *rest = path.split(".")
    for table_type in (WizardConfig, ModelConfig, RouteConfig):
        fields = attrs.fields_dict(table_type)
        if first in fields:
            inner = inner_table(fields[first].type)
            return not rest or (inner is not None and rest[0] in attrs.fields_dict(inner) and len(rest) == 1)
    return False


def exists(name: str) -> bool:
    """Say whether `name` is a name, an attribute or a setting of ours; a setting may stand with a value."""
    name, _, value = name.partition(" = ")
    if name.startswith("wizard_actors."):
        try:
            return resolve_name(name) is not None
        except (ImportError, AttributeError):
            return False
    return is_attribute(name) or is_key(name) or (bool(value) and is_key(f"retry.{name}"))


@pytest.mark.parametrize(("heading", "name"), NAMED, ids=lambda each: each)
def test_every_name_of_ours_is_there(heading: str, name: str) -> None:
    """It can be imported, is an attribute of something that can, or is a setting."""
    assert exists(name), f"{heading}: {name}"


@pytest.mark.parametrize("name", ["ResilientClient.ask", "cache.size", "Wizard", "wizard_actors.compat.Client", "ttl"])
def test_a_name_that_is_not_there_is_found(name: str) -> None:
    """The check above can fail."""
    assert not exists(name)


def test_every_error_of_ours_is_in_the_table() -> None:
    """Whoever looks for what may be raised finds all of it."""
    ours = {name for name in wizard_actors.__all__ if name.endswith("Error")}
    assert {name for heading, name in NAMED if heading == "Error variants"} == ours


def test_the_first_wizard_s_names_are_in_the_table() -> None:
    """What its programs use most."""
    used = {"GenAiClient::from_env", "CachedClient", "RateLimitedClient", "RetryClient", "FallbackClient"}
    used |= {"StreamingClient", "CircuitBreaker", "PersistentSession", "FileSessionStorage", "ResponseBufferPool"}
    assert used | {"generate_batch"} <= {each for row in table("Names") for each in names(row[0])}


def test_the_page_is_short() -> None:
    """Nobody migrates by a book."""
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 500
