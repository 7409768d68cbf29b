"""The programs in docs/examples, each run as a reader would run it: in a process of its own, over real sockets."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.loopback import Wire, chunk, response, serving
from tests.wizard_cli import clean_environment

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
SECOND = "This answer is simulated: the model second made it up."
LIMIT = 60.0
"""Seconds that anything here may take; most of it is the start of an interpreter."""


def environment(config: Path | None = None) -> dict[str, str]:
    """Return an environment without keys, in which a server takes any free port."""
    named = {} if config is None else {"WIZARD_CONFIG": str(config)}
    return {**clean_environment(), "PORT": "0", "PYTHONUNBUFFERED": "1", **named}


def program(name: str, *arguments: str) -> list[str]:
    """Return the command that runs an example; a warning is an error there."""
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


async def ran(name: str, *arguments: str) -> tuple[str, str]:
    """Run an example to its end; return what it printed, and what it said on standard error."""
    with trio.fail_after(LIMIT):
        done = await trio.run_process(
            program(name, *arguments), capture_stdout=True, capture_stderr=True, check=False, env=environment()
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


class Running:
    """An example in a process of its own; `said` is what it has said so far, on both streams."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = bytearray()
        self._over = False
        self._news = trio.Event()

    async def read(self) -> None:
        """Read what it says, until it ends."""
        assert self.process.stdout is not None
        async with self.process.stdout as stream:
            async for data in stream:
                self.said.extend(data)
                self._news.set()
                self._news = trio.Event()
        self._over = True
        self._news.set()

    async def says(self, pattern: str) -> str:
        """Wait until it has said something; return the first group."""
        while (found := re.search(pattern, self.said.decode())) is None:
            assert not self._over, self.said.decode()
            await self._news.wait()
        return found[1]

    async def stopped(self, number: int) -> int:
        """Send a signal; return the exit status once it has ended."""
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def running(name: str, config: Path | None = None) -> AsyncIterator[Running]:
    """Run an example beside the test; kill it in the end, if it still runs."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            example = Running(
                await trio.lowlevel.open_process(
                    program(name), env=environment(config), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
            nursery.start_soon(example.read)
            try:
                yield example
            finally:
                example.process.kill()
                with trio.CancelScope(shield=True):
                    await example.process.wait()


# -- an upstream -----------------------------------------------------------------------------------------------------

CONFIG = """
[defaults]
retry = {{ max_attempts = 1 }}
timeouts = {{ first_token = {first_token} }}
circuit_breaker = {{ failure_threshold = 3 }}

[[models]]
name = "large"
provider = "openai"
base_url = "{url}"
max_concurrency = 100

[[models]]
name = "small"
provider = "openai"
base_url = "{url}"
max_concurrency = 100
"""


class Upstream:
    """Does what the prompt says: "ok", "slow" (one word, then nothing), "cut", a status; else nothing."""

    def __init__(self) -> None:
        self.begun = 0
        self.under_way = 0
        self._changed = trio.Event()

    async def serve(self, wire: Wire) -> None:
        """Answer the requests of one connection."""
        while (request := await wire.request()) is not None:
            self.begun += 1
            self._count(1)
            try:
                messages = request.json["messages"]
                assert isinstance(messages, list)
                await self._answer(wire, messages[-1]["content"])
            finally:
                self._count(-1)

    async def _answer(self, wire: Wire, what: str) -> None:
        stream = {"content-type": "text/event-stream"}
        match what:
            case "ok":
                await wire.send(response(200, stream, [delta("One"), delta(" word", "stop"), b"data: [DONE]\n\n"]))
            case "slow":
                await wire.send(response(200, stream, cut=True) + chunk(delta("One")))
                await wire.gone()
            case "cut":
                await wire.send(response(200, stream, [delta("One")]))
            case status if status.isdigit():
                await wire.send(response(int(status), {"content-type": "application/json"}, [b"{}"]))
            case _:
                await wire.gone()

    async def until(self, under_way: int) -> None:
        """Wait until so many requests are under way; they end when they are answered, or given up."""
        while self.under_way != under_way:
            await self._changed.wait()

    def _count(self, more: int) -> None:
        self.under_way += more
        self._changed.set()
        self._changed = trio.Event()


def delta(text: str, finish: str | None = None) -> bytes:
    """Return one event of a streamed chat completion."""
    event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    return f"data: {json.dumps(event)}\n\n".encode()


@asynccontextmanager
async def upstream(folder: Path, *, first_token: float = 20) -> AsyncIterator[tuple[Upstream, Path]]:
    """Yield an upstream, and the configuration that leads to it."""
    model = Upstream()
    async with serving(model.serve) as url:
        config = folder / "wizard.toml"
        config.write_text(CONFIG.format(url=url, first_token=first_token), encoding="utf-8")
        yield model, config


# -- programs that end by themselves ---------------------------------------------------------------------------------


async def test_the_script_asks_streams_batches_and_uses_threads() -> None:
    """Its first model fails once, and refuses one prompt of the batch; the rest is answered."""
    printed, said = await ran("sync_script.py")

    *lines, batch, threads = printed.splitlines()
    assert lines == [
        f"one call: {SECOND} (first: provider_error, second: ok)",
        "a stream: This answer is simulated: the model first made it up. (first)",
        *(f"a batch: {number}/4" for number in range(1, 5)),
    ]
    assert re.fullmatch("a batch: 3 answered, failed: [01]: content_filter", batch)  # two are asked at once
    assert threads == "from threads: 8 answered"
    assert said == ""


async def test_ctrl_c_stops_the_script_and_its_call(tmp_path: Path) -> None:
    """The call upstream is stopped, the client closed, and the exit status says so, without a traceback."""
    async with upstream(tmp_path) as (model, config), running("sync_script.py", config) as script:
        await model.until(under_way=1)

        status = await script.stopped(signal.SIGINT)

        await model.until(under_way=0)
        assert (status, script.said.decode()) == (130, "interrupted\n")


@pytest.mark.parametrize("host", [[], ["--trio"]], ids=["asyncio", "trio"])
async def test_an_own_actor_survives_its_crash(host: list[str]) -> None:
    """It crashes during a call, whose cost counts all the same; the budget holds, and others have their own."""
    printed, said = await ran("own_actor.py", *host)

    answer = "This answer is simulated: the model large made it up."
    assert printed.splitlines() == [
        f"ann, call 1: {answer}",
        f"ann, call 2: {answer}",
        "ann, call 3: over_budget: ann has 0.016 of 0.10 dollars left",
        "ann, call 4: over_budget: ann has 0.016 of 0.10 dollars left",
        f"bob, call 1: {answer}",
        "wizard/spending running, restarts: 1, last error: RuntimeError: a drill",
    ]
    assert said.startswith("wizard/spending crashed: RuntimeError('a drill')")


async def test_an_api_is_guarded_through_a_429_and_an_outage() -> None:
    """A 429 is waited out unseen, an outage opens the circuit, and the first probe closes it."""
    printed, said = await ran("guard_http_api.py")

    assert printed.splitlines() == [
        "1 200 7 in stock at once",
        "2 200 7 in stock at once",
        "3 200 7 in stock after a wait",
        *(f"{number} failed: HTTPStatusError" for number in range(4, 7)),
        "7 not asked, the circuit is open",
        "8 200 7 in stock at once",
        "9 200 7 in stock at once",
    ]
    assert said == ""


async def test_usage_is_counted_for_each_user() -> None:
    """Failed and broken calls are on the bill of who asked, a cached answer is on nobody's."""
    printed, said = await ran("usage_per_user.py")

    assert [line.split() for line in printed.splitlines()] == [
        ["user", "requests", "cached", "calls", "unknown", "tokens_in", "tokens_out", "cost"],
        ["ann", "2", "0", "4", "1", "6", "20", "0.000086"],
        ["bob", "1", "0", "1", "0", "2", "10", "0.000084"],
        ["cleo", "1", "1", "0", "0", "0", "0", "0.000000"],
    ]
    assert said == ""


# -- the Trio service ------------------------------------------------------------------------------------------------


async def connect(service: Running) -> trio.SocketStream:
    """Connect to the service."""
    return await trio.open_tcp_stream("127.0.0.1", int(await service.says(r"listening on 127\.0\.0\.1:(\d+)\n")))


async def answers(stream: trio.SocketStream, count: int) -> list[dict[str, object]]:
    """Read so many answers, in the order of their ids."""
    read = bytearray()
    while read.count(b"\n") < count:
        data = await stream.receive_some()
        assert data, f"the service hung up after {bytes(read)!r}"
        read += data
    return sorted(map(json.loads, read.splitlines()), key=lambda answer: answer.get("id", 0))


def job(number: int, prompt: str) -> bytes:
    """Return one job."""
    return json.dumps({"id": number, "prompt": prompt}).encode() + b"\n"


async def test_the_service_answers_every_job() -> None:
    """A model that fails is unseen, and a job that is none is the only one that suffers from it."""
    async with running("trio_service.py") as service, await connect(service) as stream:
        await stream.send_all(job(1, "Why?") + b"nonsense\n" + job(2, "") + job(3, "Why not?")[:10])
        await stream.send_all(job(3, "Why not?")[10:])

        bad, first, second, third = await answers(stream, 4)

        assert bad["error"] == "bad_job"
        assert second["error"] == "invalid_prompt"
        assert {first["text"], third["text"]} == {SECOND}


async def test_the_service_answers_what_is_under_way_before_it_stops() -> None:
    """A signal stops the intake; the answers that are due are sent, and the exit is clean."""
    async with running("trio_service.py") as service, await connect(service) as stream:
        await stream.send_all(b"".join(job(number, "Why?") for number in range(5)) + b"nonsense\n")
        assert (await answers(stream, 1))[0]["error"] == "bad_job"  # so the others have been read

        service.process.send_signal(signal.SIGTERM)
        texts = [answer["text"] for answer in await answers(stream, 5)]

        assert texts == [SECOND] * 5
        assert await stream.receive_some() == b""
        assert await service.process.wait() == 0
        assert service.said.decode().endswith("stopped: 5 answered, 0 cancelled\n")


async def test_a_client_that_hangs_up_stops_its_jobs_and_no_others(tmp_path: Path) -> None:
    """The calls upstream end with the connection; the service goes on."""
    async with upstream(tmp_path) as (model, config), running("trio_service.py", config) as service:
        stream = await connect(service)
        await stream.send_all(b"".join(job(number, "slow") for number in range(5)))
        await model.until(under_way=5)

        await stream.aclose()

        await model.until(under_way=0)
        async with await connect(service) as other:
            await other.send_all(job(1, "ok"))
            assert [answer["text"] for answer in await answers(other, 1)] == ["One word"]
        assert await service.stopped(signal.SIGTERM) == 0
        assert service.said.decode().endswith("stopped: 1 answered, 5 cancelled\n")


# -- the FastAPI app -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def app(
    config: Path | None = None, name: str = "fastapi_app.py"
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """Run an app; yield it with a client that leads to it."""
    async with running(name, config) as served:
        url = await served.says(r"running on (http://127\.0\.0\.1:\d+)")
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT) as http:
            yield served, http


async def test_the_app_answers_and_streams_while_its_first_model_fails(tmp_path: Path) -> None:
    """Both endpoints fall back unseen, and the health endpoint tells of it; SIGTERM ends it in order."""
    async with app() as (served, http):
        whole = await http.post("/ask", json={"prompt": "Why?"})
        streamed = await http.post("/stream", json={"prompt": "Why?"})
        health = await http.get("/health")

        assert whole.json() == {"text": SECOND, "model": "second", "served_by": "fallback"}
        *texts, done = streamed.text.split("\n\n")[:-1]
        assert "".join(json.loads(text.removeprefix("data: "))["text"] for text in texts) == SECOND
        assert done == 'event: done\ndata: {"model": "second"}'
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert health.json() == {"up": True, "not_running": {}, "circuits": {"first": "open", "second": "closed"}}
        assert await served.stopped(signal.SIGTERM) in {0, -signal.SIGTERM}
        assert "Application shutdown complete" in served.said.decode()


async def test_the_app_says_by_status_and_retry_after_what_went_wrong(tmp_path: Path) -> None:
    """The prompt's fault is a 400, a late model a 504, an outage a 502 and, while all circuits are open, a 503."""
    async with upstream(tmp_path, first_token=0.3) as (_model, config), app(config) as (_served, http):

        async def ask(prompt: str, path: str = "/ask") -> httpx.Response:
            return await http.post(path, json={"prompt": prompt})

        for path in ("/ask", "/stream"):
            empty = await ask("", path)
            assert (empty.status_code, empty.json()) == (400, {"error": "invalid_prompt"})
        assert (await ask("silent")).status_code == 504
        cut = await ask("cut", "/stream")
        assert cut.status_code == 200
        assert cut.text == 'data: {"text": "One"}\n\nevent: error\ndata: {"error": "stream_interrupted"}\n\n'
        failed = await ask("500")
        assert (failed.status_code, failed.json()) == (502, {"error": "all_models_failed"})
        while (failed := await ask("500")).status_code == 502:
            pass
        assert failed.status_code == 503
        assert 1 <= int(failed.headers["retry-after"]) <= 30
        health = await http.get("/health")
        assert (health.status_code, health.json()["up"]) == (503, False)


async def test_the_app_passes_a_retry_after_on(tmp_path: Path) -> None:
    """Where every model refuses for its rate, the answer is a 429 with the soonest time that they named."""
    config = tmp_path / "wizard.toml"
    models = [
        f'{{ name = "{name}", provider = "simulated", '
        f'simulated = {{ script = [{{ fault = "rate_limit", retry_after = {wait} }}] }} }}'
        for name, wait in {"large": 90, "small": 70.5}.items()
    ]
    config.write_text(f"models = [{', '.join(models)}]", encoding="utf-8")
    async with app(config) as (_served, http):
        refused = await http.post("/ask", json={"prompt": "Why?"})

        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "71"


async def test_clients_that_disconnect_stop_their_calls_upstream(tmp_path: Path) -> None:
    """Whenever they leave, by whichever endpoint: nothing goes on upstream, and the app is as well as before."""
    rng = random.Random(4)
    async with upstream(tmp_path) as (model, config), app(config) as (served, http):

        async def leave_early(path: str, prompt: str, seconds: float) -> None:
            with trio.move_on_after(seconds):
                async with http.stream("POST", path, json={"prompt": prompt}) as answer:
                    async for _ in answer.aiter_text():
                        pass
                pytest.fail("it was answered")

        async with trio.open_nursery() as clients:
            for number in range(40):
                path, prompt = ("/ask", "/stream")[number % 2], ("slow", "silent")[number // 2 % 2]
                clients.start_soon(leave_early, path, prompt, rng.uniform(0.05, 1.0))
        await model.until(under_way=0)

        assert model.begun >= 10
        assert (await http.post("/ask", json={"prompt": "ok"})).json()["text"] == "One word"
        health = await http.get("/health")
        assert health.json() == {"up": True, "not_running": {}, "circuits": {"large": "closed", "small": "closed"}}
        assert await served.stopped(signal.SIGTERM) in {0, -signal.SIGTERM}
        assert "Traceback" not in served.said.decode()
        assert "never" not in served.said.decode()  # awaited, closed, retrieved


# -- the FastAPI app with sessions -----------------------------------------------------------------------------------


async def test_the_app_keeps_a_conversation_for_each_user(tmp_path: Path) -> None:
    """Turns go on where the last one ended; nobody reads another's; what breaks off leaves no trace."""
    async with upstream(tmp_path) as (model, config):
        config.write_text(f'{config.read_text(encoding="utf-8")}\n[sessions]\nstorage = "file:{tmp_path}/kept"\n')
        async with app(config, "fastapi_sessions.py") as (served, http):
            said = [{"role": "user", "text": "ok"}, {"role": "assistant", "text": "One word"}]

            async def say(prompt: str, user: str = "ann", chat: str = "first") -> httpx.Response:
                return await http.post(f"/chats/{chat}", json={"prompt": prompt}, headers={"X-User": user})

            async def history(user: str) -> httpx.Response:
                return await http.get("/chats/first", headers={"X-User": user})

            for turns in (1, 2):
                *texts, done = (await say("ok")).text.split("\n\n")[:-1]
                assert "".join(json.loads(text.removeprefix("data: "))["text"] for text in texts) == "One word"
                assert done == f'event: done\ndata: {{"turns": {turns}}}'
            assert (await say("ok", "bob")).status_code == 200

            with trio.move_on_after(1):
                await say("slow")
            await model.until(under_way=0)
            assert (await say("cut")).text.endswith('event: error\ndata: {"error": "stream_interrupted"}\n\n')
            assert ((await say("")).status_code, (await say("ok", "a:b")).status_code) == (400, 422)
            assert (await say("ok", chat="x" * 65)).status_code == 422

            assert (await history("ann")).json() == {"state": "active", "messages": said * 2}
            assert (await history("bob")).json()["messages"] == said
            assert (await history("eve")).status_code == 404
            deleted = await http.delete("/chats/first", headers={"X-User": "bob"})
            assert (deleted.json(), (await history("bob")).status_code) == ({"deleted": True}, 404)
            assert await served.stopped(signal.SIGTERM) in {0, -signal.SIGTERM}
            assert "Traceback" not in served.said.decode()


# -- a property --------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_the_property_finds_the_naive_retry_loop(tmp_path: Path) -> None:
    """It fails for the loop that shows a beginning again and again, with the one fault that it takes, and passes for
    the one that is mended.
    """
    for name in ("naive_retry.py", "test_naive_retry.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    left_out = ["-p", "no:schemathesis", "-p", "no:langsmith_plugin", "-p", "no:cacheprovider"]
    pytest_ = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        *left_out,
        "--show-capture=no",
        "--hypothesis-seed=2",
    ]
    with trio.fail_after(LIMIT):
        done = await trio.run_process(pytest_, cwd=tmp_path, capture_stdout=True, check=False, env=environment())

    printed = done.stdout.decode()
    assert "1 failed, 1 passed" in printed, printed
    assert "FAILED test_naive_retry.py::test_the_screen_shows_one_answer[naive]" in printed
    assert re.search(r"faults=\(FaultWindow\(kind='(cut|stall)'\),\),", printed), printed
    assert re.search(r"- <0:40> word .*word <1:40> word .*word <4:40> word ", printed), printed


# -- what all have in common -----------------------------------------------------------------------------------------


def test_every_example_is_run_here() -> None:
    """A program that is shown, and not run by a test, may be wrong."""
    text = Path(__file__).read_text(encoding="utf-8")

    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text, path.name
