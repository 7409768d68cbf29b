"""`wizard batch` in a process of its own, which is killed, interrupted and runs out of room, over real sockets."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from signal import Signals as Signal

import msgspec
import pytest
import trio
from attrs import Factory, define

from tests.loopback import Wire, response, serving
from tests.wizard_cli import PROGRAM, SIMULATED, clean_environment, start

PATIENCE = 120.0
"""Seconds after which a test that waits for processes has failed."""
AT_ONCE = 4
KEY = {"CANARY_KEY": "sk-canary"}

MEASURED = """
import sys, trio
from wizard_actors import ResilientClient, WizardResponse
from wizard_actors.cli import run
from wizard_actors.cli_signals import Signals

async def generate(self, prompt, **options):
    await trio.lowlevel.checkpoint()
    return WizardResponse("All is well.", "pretender")

ResilientClient.generate = generate  # what a client keeps of its calls is another matter
status = run(sys.argv[1:], Signals())
# Not getrusage: its peak begins with that of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
sys.exit(status)
"""
"""Runs the command with a client that answers at once, and prints its peak memory in KiB."""


@define
class Upstream:
    """Answers each prompt by repeating it, after a while, and counts how often it was asked."""

    rng: Random = Factory(lambda: Random(7))
    asked: Counter[str] = Factory(Counter)
    news: trio.Event = Factory(trio.Event)
    """Set, and replaced, at each question."""
    hold: bool = False
    """Whether answers wait for ever."""
    key_is_good: bool = True

    async def __call__(self, wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            [message] = msgspec.convert(request.json["messages"], list[dict[str, str]])
            self.asked[message["content"]] += 1
            self.news.set()
            self.news = trio.Event()
            if not self.key_is_good:
                refused = b'{"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}}'
                await wire.send(response(401, {"content-type": "application/json"}, [refused]))
                continue
            await trio.sleep_forever() if self.hold else await trio.sleep(self.rng.uniform(0.002, 0.03))
            await wire.send(response(200, {"content-type": "text/event-stream"}, events(f"re: {message['content']}")))

    async def asked_for(self, total: int) -> None:
        """Wait until so many questions have come."""
        while self.asked.total() < total:
            await self.news.wait()


def events(text: str) -> list[bytes]:
    """Return a streamed answer."""
    choices = [{"index": 0, "delta": {"content": text}}, {"index": 0, "delta": {}, "finish_reason": "stop"}]
    sent = [msgspec.json.encode({"id": "1", "model": "upstream", "choices": [choice]}) for choice in choices]
    return [b"data: " + data + b"\n\n" for data in (*sent, b"[DONE]")]


def prepare(path: Path, base_url: str, lines: int) -> list[str]:
    """Write a configuration and an input; return the prompts."""
    (path / "wizard.toml").write_text(
        f'[[models]]\nname = "primary"\nprovider = "openai"\nbase_url = "{base_url}"\napi_key_env = "CANARY_KEY"\n'
        "retry = { max_attempts = 1 }\n",
        encoding="utf-8",
    )
    prompts = [f"question {number}" for number in range(1, lines + 1)]
    (path / "in.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in prompts), encoding="utf-8")
    return prompts


def records(path: Path) -> list[dict[str, object]]:
    """Return what the output holds; every line of it has to be whole."""
    data = (path / "out.jsonl").read_bytes()
    assert data.endswith(b"\n") or not data
    return [msgspec.json.decode(line, type=dict[str, object]) for line in data.splitlines()]


async def begin(path: Path, *more: str) -> trio.Process:
    """Start the command."""
    flags = ("batch", "in.jsonl", "-o", "out.jsonl", "--max-concurrency", str(AT_ONCE), "--verbose", *more)
    return await start(*flags, cwd=path, env=KEY, stdout=subprocess.DEVNULL)


async def alive_until(process: trio.Process, condition: Awaitable[None]) -> None:
    """Wait for `condition`; fail where the process ends before, with what it said."""

    async def watch() -> None:
        pytest.fail(f"it ended too early: {await end_of(process)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await condition
        nursery.cancel_scope.cancel()


async def end_of(process: trio.Process) -> tuple[int, str]:
    """Wait for a process's end; return its status and what it said on standard error."""
    said = bytearray()
    assert process.stderr is not None
    async for data in process.stderr:
        said.extend(data)
    return await process.wait(), said.decode()


# -- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_after_kills_every_line_is_answered_once_and_few_are_asked_twice(
    tmp_path: Path, report_line: Callable[[str], None]
) -> None:
    """Five times it dies in the middle: what is in the output is never asked again, and each death costs at most as
    many repeats as questions were under way.
    """
    upstream, rng, kills = Upstream(), Random(3), 5
    with trio.fail_after(PATIENCE):
        async with serving(upstream) as base_url:
            prompts = prepare(tmp_path, base_url, 120)
            for _ in range(kills):
                before = upstream.asked.copy()
                there = {record["line"] for record in records(tmp_path)} if (tmp_path / "out.jsonl").exists() else set()
                process = await begin(tmp_path)
                await alive_until(process, upstream.asked_for(upstream.asked.total() + rng.randint(3, 25)))
                await trio.sleep(rng.uniform(0, 0.03))
                process.kill()
                await end_of(process)
                again = upstream.asked - before
                assert not {prompts[int(str(line)) - 1] for line in there} & again.keys()
            status, said = await end_of(await begin(tmp_path))
    answers = {record["line"]: record["response"] for record in records(tmp_path)}
    repeats = upstream.asked.total() - len(prompts)
    report_line(f"`wizard batch` killed {kills} times with {AT_ONCE} questions at once: {repeats} of 120 asked again")
    assert status == 0, said
    assert len(records(tmp_path)) == len(answers) == len(prompts)
    for number, prompt in enumerate(prompts, 1):
        answer = answers[number]
        assert isinstance(answer, dict)
        assert answer["text"] == f"re: {prompt}"
    assert 0 < repeats <= kills * AT_ONCE


# -- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_keeps_what_is_answered_and_tells_how_to_go_on(
    tmp_path: Path, number: Signal, status: int
) -> None:
    """Everything that upstream had answered stands in the output, and the same command does the rest."""
    upstream = Upstream()
    with trio.fail_after(PATIENCE):
        async with serving(upstream) as base_url:
            prompts = prepare(tmp_path, base_url, 30)
            process = await begin(tmp_path)
            await alive_until(process, upstream.asked_for(15))
            upstream.hold = True
            await alive_until(process, upstream.asked_for(15 + AT_ONCE - 1))
            await trio.sleep(0.2)
            process.send_signal(number)
            ended, said = await end_of(process)
            assert ended == status, said
            assert len(records(tmp_path)) == upstream.asked.total() - AT_ONCE
            assert f"{len(records(tmp_path))} answered, 0 failed" in said
            assert "the same command goes on where this one stopped" in said
            upstream.hold = False
            ended, said = await end_of(await begin(tmp_path))
    assert ended == 0, said
    assert sorted(int(str(record["line"])) for record in records(tmp_path)) == list(range(1, 31))
    assert upstream.asked.total() == len(prompts) + AT_ONCE


# -- a wrong key -----------------------------------------------------------------------------------------------------


async def test_a_wrong_key_costs_a_few_calls_and_no_line(tmp_path: Path) -> None:
    """The run stops, says what is wrong, and is gone on with once the key is right."""
    upstream = Upstream(key_is_good=False)
    with trio.fail_after(PATIENCE):
        async with serving(upstream) as base_url:
            prompts = prepare(tmp_path, base_url, 60)
            status, said = await end_of(await begin(tmp_path))
            assert status == 1
            assert records(tmp_path) == []
            assert upstream.asked.total() <= 2 * AT_ONCE
            assert "waiting does not help: stopped" in said
            assert "401" in said.splitlines()[-1]
            upstream.key_is_good = True
            status, said = await end_of(await begin(tmp_path))
    assert status == 0, said
    assert len(records(tmp_path)) == len(prompts)


# -- out of room -----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_whole_lines_and_a_clear_error(tmp_path: Path) -> None:
    """The process may not write more than some kilobytes: what fits is there, and a later run goes on."""
    (tmp_path / "wizard.toml").write_text(SIMULATED)
    (tmp_path / "in.jsonl").write_text('"Why?"\n' * 60)
    command = [*PROGRAM, "batch", "in.jsonl", "-o", "out.jsonl"]
    limited = ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", *command]
    full = subprocess.run(limited, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "out.jsonl takes no further line: " in full.stderr
    fitted = len(records(tmp_path))
    assert 0 < fitted < 60
    rest = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert rest.returncode == 0, rest.stderr
    assert f"{60 - fitted} answered, 0 failed, {fitted} there already" in rest.stderr
    assert sorted(int(str(record["line"])) for record in records(tmp_path)) == list(range(1, 61))


# -- many lines ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_ten_thousand_lines_take_no_more_memory_than_a_hundred(
    tmp_path: Path, report_line: Callable[[str], None]
) -> None:
    """Lines are read as they are asked, and answers leave as they come: 20 MB of questions, under 4 MB more."""
    (tmp_path / "wizard.toml").write_text(SIMULATED)
    question = json.dumps({"prompt": "Why? " * 400}) + "\n"
    peaks = {}
    for lines in (100, 10_000):
        (tmp_path / "in.jsonl").write_text(question * lines)
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, "batch", "in.jsonl", "-o", f"{lines}.jsonl", "--max-concurrency", "32"],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert f"{lines} answered" in ran.stderr
        peaks[lines] = int(ran.stdout) / 1024
    report_line(f"`wizard batch`, peak memory: {peaks[100]:.1f} MB for 100 lines, {peaks[10_000]:.1f} MB for 10,000")
    assert peaks[10_000] - peaks[100] < 4


# -- on a terminal ---------------------------------------------------------------------------------------------------


def test_a_terminal_is_shown_a_bar(tmp_path: Path) -> None:
    """With how many lines are done; the summary stands below it."""
    (tmp_path / "wizard.toml").write_text(SIMULATED)
    (tmp_path / "in.jsonl").write_text('"Why?"\n{\n"How?"\n')
    terminal, end = os.openpty()
    try:
        ran = subprocess.run(
            [*PROGRAM, "batch", "in.jsonl", "-o", "out.jsonl"],
            cwd=tmp_path,
            env={**clean_environment(), "TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stderr=end,
            check=False,
        )
        shown = os.read(terminal, 2**16).decode()
    finally:
        os.close(terminal)
        os.close(end)
    assert ran.returncode == 1
    assert "3/3" in shown
    assert "wizard: line 2 is skipped: " in shown
    assert shown.splitlines()[-1].startswith("wizard: out.jsonl: 2 answered, 0 failed, 0 there already, 1 broken")
